"""Looks at packaging/Containerfile and packaging/kubernetes.yaml, which nothing here can run.

usage: recipes.py [DEPENDS]     DEPENDS: the field of that name of the .deb. Exits 77 without the packages that it needs.
"""
import glob
import re
import shlex
import sys

try:
    import kubernetes_validate
    import yaml
    from dockerfile_parse import DockerfileParser
except ImportError as error:
    print(f"no Python package {error.name} here")
    sys.exit(77)

unit = open("packaging/bpfrec.service").read()
capabilities = {name.removeprefix("CAP_") for name in re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.M)[1].split()}
options = re.search(r'"BPFREC_OPTIONS=(.*)"', unit)[1]

# The pod: by the newest schema, unknown fields refused; the same recording and the same privileges as the unit's.
documents = list(yaml.safe_load_all(open("packaging/kubernetes.yaml")))
for document in documents:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
pod = documents[-1]["spec"]["template"]["spec"]
(container,) = pod["containers"]
privileges = container["securityContext"]["capabilities"]
assert pod["hostPID"] and privileges["drop"] == ["ALL"] and set(privileges["add"]) == capabilities, privileges
assert f"bpfrec record -q {options} -o current" in container["args"][0], container["args"]
mounted = {m["name"] for m in container["volumeMounts"]}
assert mounted == {v["name"] for v in pod["volumes"]}, mounted

# The image: what is copied is here, what is installed is what the binary links, the example has the same privileges.
recipe = DockerfileParser(fileobj=open("packaging/Containerfile", "rb"))
assert len(recipe.parent_images) == 2, recipe.parent_images
for instruction in recipe.structure:
    if instruction["instruction"] == "COPY" and "--from" not in instruction["value"]:
        for source in shlex.split(instruction["value"])[:-1]:
            assert glob.glob(source), source
rust = re.search(r'^rust-version = "(.*)"', open("Cargo.toml").read(), re.M)[1]
assert f"/rust:{rust}-" in recipe.parent_images[0], recipe.parent_images
told = re.search(r"--cap-add=(\S+)", recipe.content)[1].split(",")
assert set(told) == capabilities, told
if len(sys.argv) > 1:
    linked = {re.match(r"\S+?(?=t64\b|[ ,]|$)", name)[0] for name in sys.argv[1].split(", ")} - {"libc6", "libgcc-s1"}
    last = [i["value"] for i in recipe.structure if i["instruction"] == "RUN"][-1]
    installed = set(re.search(r"--no-install-recommends ([^&]*)&&", last)[1].split())
    assert linked <= installed and installed - linked == {"ca-certificates"}, (linked, installed)
