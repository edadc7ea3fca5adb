//! What a cgroup path says: the container runtime, the container, the pod, the systemd unit. The recorder writes it beside the
//! path (kind `cgroup`); readers parse the path themselves only where a file has nothing but that.

/// What is known of a cgroup from its path alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `docker`, `containerd`, `cri-o`, `podman` or `kubernetes` where only that much is known.
    pub runtime: Option<String>,
    /// The runtime's id of the container.
    pub container_id: Option<String>,
    /// Kubernetes' id of the pod.
    pub pod_uid: Option<String>,
    /// Innermost systemd service, scope or slice.
    pub unit: Option<String>,
}

/// Scopes that container runtimes make, by prefix.
const SCOPES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
];

/// Directories of container runtimes that use cgroupfs rather than systemd.
const DIRECTORIES: &[(&str, &str)] =
    &[("docker", "docker"), ("libpod_parent", "podman"), ("containerd", "containerd"), ("default", "containerd")];

/// Reads a path from the hierarchy's root.
pub fn names(path: &str) -> Names {
    let mut names = Names::default();
    let mut parent = "";
    for part in path.split('/').filter(|p| !p.is_empty()) {
        if let Some(uid) = pod_uid(part) {
            names.pod_uid = Some(uid);
            names.runtime = names.runtime.or_else(|| Some("kubernetes".into()));
        } else if let Some((id, runtime)) = scope(part) {
            (names.container_id, names.runtime) = (Some(id.into()), Some(runtime.into()));
        } else if is_id(part.strip_prefix("libpod-").unwrap_or(part)) {
            let known = DIRECTORIES.iter().find(|(directory, _)| *directory == parent);
            let podman = part.starts_with("libpod-").then_some("podman");
            let runtime = podman.or(known.map(|(_, runtime)| *runtime)).map(str::to_owned).or(names.runtime.take());
            // 64 hex digits below nothing that is known are somebody's, but not surely a container.
            if runtime.is_some() {
                names.container_id = Some(part.strip_prefix("libpod-").unwrap_or(part).into());
                names.runtime = runtime;
            }
        }
        if [".service", ".scope", ".slice"].iter().any(|suffix| part.len() > suffix.len() && part.ends_with(suffix)) {
            names.unit = Some(part.into());
        }
        parent = part;
    }
    names
}

/// `cri-containerd-ID.scope`, also below a systemd cgroup driver's `slice:cri-containerd:ID`.
fn scope(part: &str) -> Option<(&str, &'static str)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if part.ends_with(".scope")
        && let Some((id, runtime)) = SCOPES.iter().find_map(|(p, runtime)| Some((name.strip_prefix(p)?, *runtime)))
    {
        let id = id.strip_prefix("conmon-").unwrap_or(id);
        return is_id(id).then_some((id, runtime));
    }
    let (runtime, id) = part.rsplit_once(':')?;
    (is_id(id) && runtime.ends_with(":cri-containerd")).then_some((id, "containerd"))
}

/// `podUID`, `kubepods-burstable-podUID.slice`; systemd's form has `_` for `-`.
fn pod_uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = name.strip_prefix("pod").or_else(|| {
        let rest = name.strip_prefix("kubepods-")?;
        rest.strip_prefix("pod").or_else(|| rest.split_once("-pod").map(|(_, uid)| uid))
    })?;
    let uid = uid.replace('_', "-");
    // A UUID, or 32 hex digits for a static pod.
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (hex == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(uid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let id = "4f8a".repeat(16);
        let uid = "0e1c7c32-5f5c-4b8e-9a5b-0a1b2c3d4e5f";
        let uid_ = uid.replace('-', "_");
        // Path, runtime, whether there are a container and a pod, unit.
        type Row = (String, Option<&'static str>, bool, bool, Option<&'static str>);
        let rows: &[Row] = &[
            ("/".into(), None, false, false, None),
            ("/user.slice/user-0.slice/session-1.scope".into(), None, false, false, Some("session-1.scope")),
            ("/system.slice/nginx.service".into(), None, false, false, Some("nginx.service")),
            (format!("/system.slice/docker-{id}.scope"), Some("docker"), true, false, None),
            (format!("/docker/{id}"), Some("docker"), true, false, None),
            (format!("/docker/{id}/system.slice/a.service"), Some("docker"), true, false, Some("a.service")),
            (format!("/machine.slice/libpod-{id}.scope/container"), Some("podman"), true, false, None),
            (format!("/libpod_parent/libpod-{id}"), Some("podman"), true, false, None),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope"
                ),
                Some("containerd"),
                true,
                true,
                None,
            ),
            (format!("/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope"), Some("cri-o"), true, true, None),
            (format!("/kubepods/burstable/pod{uid}/{id}"), Some("kubernetes"), true, true, None),
            (format!("/kubepods/pod{}", uid.replace('-', "")), Some("kubernetes"), false, true, None),
            (
                format!("/x/kubepods-besteffort-pod{uid_}.slice:cri-containerd:{id}"),
                Some("containerd"),
                true,
                false,
                None,
            ),
            (format!("/random/{id}"), None, false, false, None),
            ("/podcast/podium".into(), None, false, false, None),
            ("/.service".into(), None, false, false, None),
            ("/system.slice/docker-é.scope".into(), None, false, false, Some("docker-é.scope")),
        ];
        for (path, runtime, has_id, has_pod, unit) in rows {
            let names = names(path);
            assert_eq!(names.runtime.as_deref(), *runtime, "{path}");
            assert_eq!(names.container_id.as_ref(), has_id.then_some(&id), "{path}");
            match names.pod_uid {
                Some(pod) => assert!(*has_pod && pod.replace('-', "") == uid.replace('-', ""), "{path}"),
                None => assert!(!has_pod, "{path}"),
            }
            if unit.is_some() {
                assert_eq!(names.unit.as_deref(), *unit, "{path}");
            }
        }
    }
}
