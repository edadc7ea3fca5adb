#!/usr/bin/env python3
"""Reads a .bpr trace as SPEC.md says, knowing nothing of the Rust code: events in time order as lines of JSON.

    reader.py TRACE        prints what `bpfrec replay --json TRACE` prints
Kinds come from the tables of SPEC.md section 12 and from the trace's own SCHEMA. Needs the package zstandard.
"""

import json, os, pathlib, re, struct, sys

import zstandard

SYNC, MAGIC = bytes([0xB6, 0x42, 0x50, 0x52, 0x43, 0x0D, 0x0A, 0x1A]), 0x184D2A5B
HEADER, CAP, MAX_VALUES, NO_STREAM, MASK = 96, 16 << 20, 4 << 20, 0xFFFFFFFF, (1 << 64) - 1
TYPES = {1: "u8", 2: "u16", 3: "u32", 4: "u64", 5: "i32", 6: "i64", 7: "text", 8: "list"}
RAW = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i32": "<i", "i64": "<q"}
EMPTY = {"text": b"", "list": []}
NAMES = ("trace_id seq segment type codec encoding flags stream major minor "
         "payload_len raw_len rows extra ts_min ts_max lost crc").split()

class Damaged(Exception): "A block's bytes are not what they should be."
class NotUnderstood(Exception): "A number of a later version."

def need(condition, what):
    if not condition:
        raise Damaged(what)

CRC = list(range(256))
for _ in range(8):
    CRC = [n >> 1 ^ (0x82F63B78 if n & 1 else 0) for n in CRC]

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

assert crc32c(b"123456789") == 0xE3069283

# Sections 3 and 7: blocks.
def header_at(data, at):
    b = data[at:at + HEADER]
    if len(b) < HEADER or b[8:16] != SYNC or struct.unpack_from("<I", b)[0] != MAGIC:
        return None
    h = dict(zip(NAMES, struct.unpack_from("<QQIBBBBIHHIIIIQQQI", b, 16)), at=at)
    h["end"], h["id"] = at + HEADER + h["payload_len"], (h["trace_id"], h["segment"])
    whole = crc32c(b[:92]) == struct.unpack_from("<I", b, 92)[0]
    return h if whole and h["payload_len"] <= CAP and h["raw_len"] <= CAP else None

def next_header(data, start):
    places = (m.start() - 8 for m in re.compile(re.escape(SYNC)).finditer(data, start + 8))
    return next((at for at in places if header_at(data, at)), len(data))

def is_whole(data, h):
    return crc32c(data[h["at"] + HEADER:h["end"]]) == h["crc"]

def walk(data):
    """The headers of the segment, each number once."""
    found, at, chained = [], 0, False
    while at < len(data):
        h = header_at(data, at)
        if not h or h["end"] > len(data):
            at, chained = next_header(data, at + 1), False
            continue
        found.append(h)
        after = header_at(data, h["end"])
        follows = bool(after) and after["id"] == h["id"] and after["seq"] == h["seq"] + 1
        if (chained and follows) or is_whole(data, h):
            at, chained = h["end"], follows
        else:
            at, chained = min(next_header(data, at + HEADER), h["end"]), False
    if not found:
        sys.exit("not a .bpr trace: no valid block")
    if (newest := max(h["major"] for h in found)) > 1:
        sys.exit(f"format version {newest}: this reads up to 1")
    own, size, by_seq = found[0]["id"], {}, {}
    if not (found[0]["at"] == 0 and found[0]["type"] == 1 and is_whole(data, found[0])):
        for h in found:
            size[h["id"]] = size.get(h["id"], 0) + h["end"] - h["at"]
        own = max(size, key=lambda key: (size[key], key))
    for h in (h for h in found if h["id"] == own):
        other = by_seq.setdefault(h["seq"], h)
        if other is not h and is_whole(data, h) and not is_whole(data, other):
            by_seq[h["seq"]] = h
    return [by_seq[seq] for seq in sorted(by_seq)]

def payload(data, h):
    stored = data[h["at"] + HEADER:h["end"]]
    need(crc32c(stored) == h["crc"], "payload checksum")
    if h["codec"] > 1:
        raise NotUnderstood(f"codec {h['codec']}")
    raw, unpack = stored, zstandard.ZstdDecompressor().decompressobj()
    if h["codec"] == 1:
        try:
            need(zstandard.frame_content_size(stored) == h["raw_len"], "content size")
            raw = unpack.decompress(stored)
        except zstandard.ZstdError as error:
            raise Damaged(str(error)) from error
    need(len(raw) == h["raw_len"] and not unpack.unused_data, "one frame of raw_len bytes")
    return raw

# Sections 4 and 5: rows.
class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        need(self.at <= len(self.data), "cut")
        return self.data[self.at - n:self.at]

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need((byte or not shift) and value <= MASK, "overlong varint")
                return value
        raise Damaged("overlong varint")

    def varints(self, n):
        return [self.varint() for _ in range(n)]

    def deltas(self, n):
        before = 0
        return [before := (before + (v >> 1 ^ -(v & 1))) & MASK for v in self.varints(n)]

def column(data, ty, rows, stored):
    c = Cursor(data)
    tag = c.take(1)[0]
    if tag > 8:
        raise NotUnderstood(f"column tag {tag}")
    need(tag < 7 or ty not in EMPTY, "tag of the type")
    need((ty == "text") == (tag == 5) and (ty == "list") == (tag == 6), "tag of the type")
    if tag == 0:
        out = [c.varint()] * rows
    elif tag in (1, 2):
        out = c.varints(rows) if tag == 1 else c.deltas(rows)
    elif tag == 3:
        values = c.varints(c.take(1)[0] + 1)
        picks = c.take(rows)
        need(all(p < len(values) for p in picks), "dictionary")
        out = [values[p] for p in picks]
    elif tag == 4:
        out = struct.unpack(f"<{rows}Q", c.take(8 * rows))
    elif tag == 7:
        other = stored[c.varint()]
        need(other[0] != 7, "column that does not follow itself")
        out, row = [0, *column(other, "u64", rows, stored)][:rows], 0
        for _ in range(c.varint()):
            row += c.varint()
            out[row], row = c.varint(), row + 1
    elif tag == 8:
        other = stored[c.varint()]
        need(other[0] == 3, "column with a dictionary")
        values = c.varints(other[1] + 1)
        out = [values[pick] for pick in (other[len(other) - rows:] if rows else b"")]
    else:
        lengths = c.varints(rows)
        need(tag == 5 or max(lengths, default=0) <= 1024, "list length")
        out = [c.take(n) if tag == 5 else c.deltas(n) for n in lengths]
    need(c.at == len(data), "end of the column")
    return [v - (1 << 64) if v >> 63 else v for v in out] if ty[0] == "i" else out

def raw_field(data, f, rows, size):
    at, width, ty = f["offset"], f["width"], f["type"]
    if width == 0 or at + width > size:
        return [EMPTY.get(ty, 0)] * rows
    need(ty == "text" or ty in RAW and struct.calcsize(RAW[ty]) == width, "width of the type")
    cells = [data[r * size + at:r * size + at + width] for r in range(rows)]
    return [c.split(b"\0")[0] if ty == "text" else struct.unpack(RAW[ty], c)[0] for c in cells]

def section(data, fields, encoding, count, rows):
    """Columns of all fields, in order."""
    need(rows * len(fields) <= MAX_VALUES, "budget")
    if encoding == 2:
        c = Cursor(data)
        stored = [c.take(c.varint()) for _ in range(count)]
        need(c.at == len(data), "end of the section")
        out = [column(bytes, f["type"], rows, stored) for bytes, f in zip(stored, fields)]
    elif encoding == 0:
        need(len(data) % rows == 0 and len(data) >= rows if rows else not data, "raw rows")
        out = [raw_field(data, f, rows, len(data) // max(rows, 1)) for f in fields]
    else:
        raise NotUnderstood(f"encoding {encoding}")
    return out + [[EMPTY.get(f["type"], 0)] * rows for f in fields[len(out):]]

def sections(data, h, kinds, wanted):
    """Kind, columns and rows of each section that is wanted, and the rows not understood."""
    c, unknown, out = Cursor(payload(data, h)), 0, []
    while c.at < len(c.data):
        number, count, rows, size = struct.unpack("<HHII", c.take(12))
        stored, kind = c.take(size), kinds.get(number)
        try:
            if kind is None:
                unknown += rows
            elif wanted(kind):
                out.append((kind, section(stored, kind["fields"], h["encoding"], count, rows), rows))
        except NotUnderstood:
            unknown += rows
    return out, unknown

# Sections 6 and 12: kinds.
def specified_kinds():
    spec, kinds = (pathlib.Path(__file__).parent / "../SPEC.md").read_text("utf-8"), {}
    for part in spec.split("\n## 12.")[1].split("\n### ")[1:]:
        head, *rows = [[c.strip() for c in line.strip("|").split(" | ")] for line in part.splitlines() if line[:2] == "| "]
        place = lambda row: (int(row[2]), int(row[3])) if head[2] == "offset" else (0, 0)
        fields = [dict(zip(("name", "type", "offset", "width"), (*row[:2], *place(row)))) for row in rows]
        for title in part.splitlines()[0].split(", "):
            number, name = int(title.split()[0], 0), title.split()[1]
            kinds[number] = {"id": number, "name": name, "event": number >= 0x20, "fields": fields}
    return kinds

def learn(kinds, rows):
    own, described = specified_kinds(), {}
    for number, name, source, _, field, ty, offset, width, _ in rows:
        name, field = name.decode(errors="replace"), field.decode(errors="replace")
        new = {"id": number, "name": name, "event": source != 0, "fields": [], "open": True}
        kind = described.setdefault(number, new)
        kind["open"] &= ty in TYPES
        if kind["open"]:
            kind["fields"].append({"name": field, "type": TYPES[ty], "offset": offset, "width": width})
    for number, kind in described.items():
        mine, fields = own.get(number), kind["fields"]
        if number in (2, 13) or not (mine or kind["name"] and fields):
            continue
        if mine:
            if any((a["name"], a["type"]) != (b["name"], b["type"]) for a, b in zip(mine["fields"], fields)):
                continue
            kind.update(name=mine["name"], event=mine["event"], fields=fields + mine["fields"][len(fields):])
        kinds[number] = kind

def segment_events(data):
    """Sort key and fields of every event of a segment."""
    kinds, blocks = specified_kinds(), walk(data)
    for h in (h for h in blocks if h["type"] == 2):
        try:
            for _, columns, _ in sections(data, h, kinds, lambda k: k["id"] == 2)[0]:
                learn(kinds, zip(*columns[:9]))
        except (Damaged, NotUnderstood):
            pass
    for h in (h for h in blocks if h["type"] in (3, 5, 6)):
        try:
            found, unknown = sections(data, h, kinds, lambda k: k["event"])
        except (Damaged, NotUnderstood) as error:
            print(f"block {h['seq']} at offset {h['at']}: {error}", file=sys.stderr)
            continue
        if unknown:
            print(f"block {h['seq']}: {unknown} rows are not understood", file=sys.stderr)
        stream = None if h["stream"] == NO_STREAM else h["stream"]
        for place, (kind, columns, rows) in enumerate(found):
            for row in range(rows):
                fields = {f["name"]: c[row] for f, c in zip(kind["fields"], columns)}
                event = {"ts_ns": fields.pop("ts_ns"), "cpu": fields.pop("cpu", stream), "kind": kind["name"]}
                event |= {n: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for n, v in fields.items()}
                yield (event["ts_ns"], h["stream"], h["seq"], kind["id"], place, row), event

def main(path):
    names = [path]
    if os.path.isdir(path):
        names = sorted(os.path.join(path, n) for n in os.listdir(path) if re.fullmatch(r"seg-.*\.bpr(\.part)?", n))
    events = [event for name in names for event in segment_events(pathlib.Path(name).read_bytes())]
    for _, event in sorted(events, key=lambda e: e[0]):
        print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main(sys.argv[1])
