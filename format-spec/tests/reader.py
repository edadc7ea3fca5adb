#!/usr/bin/env python3
"""Reads a .bpr trace as SPEC.md says, knowing nothing of the Rust code: events in time order as lines of JSON.

    reader.py TRACE        prints what `bpfrec replay --json TRACE` prints
Kinds come from the tables of SPEC.md section 12 and from the trace's own SCHEMA. Needs the package zstandard.
"""

import json
import os
import re
import struct
import sys

import zstandard

MAGIC, SYNC = 0x184D2A5B, bytes([0xB6, 0x42, 0x50, 0x52, 0x43, 0x0D, 0x0A, 0x1A])
HEADER, CAP, MAX_VALUES, NO_STREAM = 96, 16 << 20, 4 << 20, 0xFFFFFFFF
TYPES = {1: "u8", 2: "u16", 3: "u32", 4: "u64", 5: "i32", 6: "i64", 7: "text", 8: "list"}
RAW = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i32": "<i", "i64": "<q"}
NAMES = ("trace_id", "seq", "segment", "type", "codec", "encoding", "flags", "stream", "major", "minor",
         "payload_len", "raw_len", "rows", "extra", "ts_min", "ts_max", "lost", "crc")


class Damaged(Exception):
    """A block's bytes are not what they should be."""


class NotUnderstood(Exception):
    """A number of a later version."""


def need(condition, what):
    if not condition:
        raise Damaged(what)


def crc_table():
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        yield n


CRC = tuple(crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


# Section 3 and 7: blocks.

def header_at(data, at):
    b = data[at:at + HEADER]
    if len(b) < HEADER or b[8:16] != SYNC or struct.unpack_from("<I", b)[0] != MAGIC:
        return None
    if crc32c(b[:92]) != struct.unpack_from("<I", b, 92)[0]:
        return None
    h = dict(zip(NAMES, struct.unpack_from("<QQIBBBBIHHIIIIQQQI", b, 16)), at=at)
    h["end"] = at + HEADER + h["payload_len"]
    return h if h["payload_len"] <= CAP and h["raw_len"] <= CAP else None


def next_header(data, start):
    at = start
    while (at := data.find(SYNC, at)) >= 0:
        if at - 8 >= start and header_at(data, at - 8):
            return at - 8
        at += 1
    return len(data)


def is_whole(data, h):
    return crc32c(data[h["at"] + HEADER:h["end"]]) == h["crc"]


def follows(h, after):
    return after and all(h[k] == after[k] for k in ("trace_id", "segment")) and after["seq"] == h["seq"] + 1


def walk(data):
    found, at, chained = [], 0, False
    while at < len(data):
        h = header_at(data, at)
        if not h or h["end"] > len(data):
            at, chained = next_header(data, at + 1), False
            continue
        found.append(h)
        on = follows(h, header_at(data, h["end"]))
        if (chained and on) or is_whole(data, h):
            at, chained = h["end"], bool(on)
        else:
            at, chained = min(next_header(data, at + HEADER), h["end"]), False
    if not found:
        sys.exit("not a .bpr trace: no valid block")
    newest = max(h["major"] for h in found)
    if newest > 1:
        sys.exit(f"format version {newest}: this reads up to 1")
    own = found[0]
    if not (own["at"] == 0 and own["type"] == 1 and is_whole(data, own)):
        size = {}
        for h in found:
            key = h["trace_id"], h["segment"]
            size[key] = size.get(key, 0) + h["end"] - h["at"]
        best = max(size, key=lambda key: (size[key], key))
        own = {"trace_id": best[0], "segment": best[1]}
    by_seq = {}
    for h in found:
        if (h["trace_id"], h["segment"]) == (own["trace_id"], own["segment"]):
            by_seq.setdefault(h["seq"], []).append(h)
    pick = lambda same: same[0] if len(same) == 1 else next((h for h in same if is_whole(data, h)), same[0])
    return [pick(by_seq[seq]) for seq in sorted(by_seq)]


def payload(data, h):
    stored = data[h["at"] + HEADER:h["end"]]
    need(crc32c(stored) == h["crc"], "payload checksum")
    if h["codec"] == 0:
        need(len(stored) == h["raw_len"], "raw_len")
        return stored
    if h["codec"] != 1:
        raise NotUnderstood(f"codec {h['codec']}")
    try:
        need(zstandard.frame_content_size(stored) == h["raw_len"], "content size")
        unpack = zstandard.ZstdDecompressor().decompressobj()
        raw = unpack.decompress(stored)
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from error
    need(len(raw) == h["raw_len"] and not unpack.unused_data, "one frame of raw_len bytes")
    return raw


# Sections 4 and 5: rows.

def varint(data, at):
    value = shift = 0
    while True:
        need(at < len(data) and shift <= 63, "cut varint")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            need((byte or shift == 7) and value < 1 << 64, "overlong varint")
            return value, at


def varints(data, at, count):
    values = []
    for _ in range(count):
        value, at = varint(data, at)
        values.append(value)
    return values, at


def undo_deltas(values):
    before, out = 0, []
    for v in values:
        before = (before + (v >> 1 ^ -(v & 1))) & 0xFFFFFFFFFFFFFFFF
        out.append(before)
    return out


def column(data, ty, rows):
    need(data, "a tag")
    tag, at = data[0], 1
    if tag > 6:
        raise NotUnderstood(f"column tag {tag}")
    need((ty == "text") == (tag == 5) and (ty == "list") == (tag == 6), "tag of the type")
    if tag == 0:
        value, at = varint(data, at)
        out = [value] * rows
    elif tag in (1, 2):
        out, at = varints(data, at, rows)
        out = undo_deltas(out) if tag == 2 else out
    elif tag == 3:
        need(len(data) > 1, "dictionary size")
        values, at = varints(data, 2, data[1] + 1)
        picks, at = data[at:at + rows], at + rows
        need(all(p < len(values) for p in picks), "dictionary")
        out = [values[p] for p in picks]
    elif tag == 4:
        need(len(data) == 1 + 8 * rows, "fixed column")
        out, at = list(struct.unpack_from(f"<{rows}Q", data, 1)), len(data)
    else:
        lengths, at = varints(data, at, rows)
        out = []
        for n in lengths:
            if tag == 5:
                out.append(data[at:at + n])
                at += n
            else:
                need(n <= 1024, "list length")
                items, at = varints(data, at, n)
                out.append(undo_deltas(items))
    need(at == len(data), "end of the column")
    return [v - (1 << 64) if ty[0] == "i" and v >> 63 else v for v in out] if ty not in ("text", "list") else out


EMPTY = {"text": b"", "list": []}


def section(data, kind, encoding, count, rows):
    """Columns of all fields of the kind, in order."""
    fields, out, at = kind["fields"], [], 0
    need(rows * len(fields) <= MAX_VALUES, "budget")
    if encoding == 2:
        for i in range(count):
            size, at = varint(data, at)
            need(at + size <= len(data), "column length")
            if i < len(fields):
                out.append(column(data[at:at + size], fields[i]["type"], rows))
            at += size
        need(at == len(data), "end of the section")
    elif encoding == 0:
        need(len(data) % rows == 0 and len(data) >= rows if rows else not data, "raw rows")
        size = len(data) // rows if rows else 0
        for f in fields:
            at, width, ty = f["offset"], f["width"], f["type"]
            cells = [data[r * size + at:r * size + at + width] for r in range(rows)]
            if width == 0 or at + width > size:
                out.append([EMPTY.get(ty, 0)] * rows)
            elif ty == "text":
                out.append([c.split(b"\0")[0] for c in cells])
            else:
                need(ty in RAW and struct.calcsize(RAW[ty]) == width, "width of the type")
                out.append([struct.unpack(RAW[ty], c)[0] for c in cells])
    else:
        raise NotUnderstood(f"encoding {encoding}")
    return out + [[EMPTY.get(f["type"], 0)] * rows for f in fields[len(out):]]


def sections(data, h, kinds, wanted):
    """Kind and columns of each section that is wanted, and the rows not understood."""
    raw, at, unknown, out = payload(data, h), 0, 0, []
    while at < len(raw):
        need(at + 12 <= len(raw), "section header")
        number, count, rows, size = struct.unpack_from("<HHII", raw, at)
        at += 12
        need(at + size <= len(raw), "section length")
        kind = kinds.get(number)
        if kind is None:
            unknown += rows
        elif wanted(kind):
            try:
                out.append((kind, section(raw[at:at + size], kind, h["encoding"], count, rows), rows))
            except NotUnderstood:
                unknown += rows
        at += size
    return out, unknown


# Sections 6 and 12: kinds.

def specified_kinds():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "SPEC.md")
    with open(path, encoding="utf-8") as file:
        parts = file.read().split("\n## 12.")[1].split("\n### ")[1:]
    kinds = {}
    for part in parts:
        rows = [[c.strip() for c in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("| ")]
        fields = []
        for row in rows[1:]:
            offset, width = (int(row[2]), int(row[3])) if rows[0][2] == "offset" else (0, 0)
            fields.append({"name": row[0], "type": row[1], "offset": offset, "width": width})
        for title in part.splitlines()[0].split(", "):
            number, name = title.split()
            kinds[int(number, 0)] = {"id": int(number, 0), "name": name, "event": int(number, 0) >= 0x20, "fields": fields}
    return kinds


def learn(kinds, rows):
    own = specified_kinds()
    described = {}
    for number, name, source, _, field, ty, offset, width, _ in rows:
        kind = described.setdefault(number, {"id": number, "name": name.decode(errors="replace"), "event": source != 0,
                                             "fields": [], "open": True})
        kind["open"] &= ty in TYPES
        if kind["open"]:
            kind["fields"].append({"name": field.decode(errors="replace"), "type": TYPES[ty], "offset": offset, "width": width})
    for number, kind in described.items():
        mine = own.get(number)
        if number in (2, 13) or not (mine or kind["name"] and kind["fields"]):
            continue
        if mine:
            if any((a["name"], a["type"]) != (b["name"], b["type"]) for a, b in zip(mine["fields"], kind["fields"])):
                continue
            kind["fields"] += mine["fields"][len(kind["fields"]):]
            kind.update(name=mine["name"], event=mine["event"])
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
        for place, (kind, columns, rows) in enumerate(found):
            names = [f["name"] for f in kind["fields"]]
            for row in range(rows):
                fields = {name: c[row] for name, c in zip(names, columns)}
                cpu = None if h["stream"] == NO_STREAM else h["stream"]
                event = {"ts_ns": fields.pop("ts_ns"), "cpu": fields.pop("cpu", cpu), "kind": kind["name"]}
                for name, v in fields.items():
                    event[name] = v.decode("utf-8", "replace") if isinstance(v, bytes) else v
                yield (event["ts_ns"], h["stream"], h["seq"], kind["id"], place, row), event


def main(path):
    names = [path]
    if os.path.isdir(path):
        names = sorted(os.path.join(path, n) for n in os.listdir(path) if re.fullmatch(r"seg-.*\.bpr(\.part)?", n))
    events = []
    for name in names:
        with open(name, "rb") as file:
            events += segment_events(file.read())
    for _, event in sorted(events, key=lambda e: e[0]):
        print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main(sys.argv[1])
