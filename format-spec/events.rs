//! Events: one `repr(C)` struct a kind, the single place where their layout is written down, a file each source. `events.h`,
//! which the BPF programs include, is made from them (`BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h`), and a test holds
//! the two against each other. Structs only ever grow at the end.

mod block;
mod kmem;
mod layout;
mod malloc;
mod offcpu;
mod profile;
mod sched;
mod task;

pub use block::*;
pub use kmem::*;
pub use malloc::*;
pub use offcpu::*;
pub use profile::*;
pub use sched::*;
pub use task::*;

use crate::kind::Kind;

const HEADER_TOP: &str = "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Made from events.rs: BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h */
#pragma once
";

/// All kinds of events.
pub fn kinds() -> Vec<Kind> {
    [task::kinds(), sched::kinds(), block::kinds(), profile::kinds(), kmem::kinds(), malloc::kinds(), offcpu::kinds()]
        .concat()
}

/// The text of `events.h`.
pub fn header() -> String {
    let parts = [
        task::header(),
        sched::header(),
        block::header(),
        profile::header(),
        kmem::header(),
        malloc::header(),
        offcpu::header(),
    ];
    HEADER_TOP.to_owned() + &parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_h() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/events.h");
        if std::env::var_os("BPFREC_UPDATE").is_some() {
            std::fs::write(path, header()).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap();
        assert_eq!(file, header(), "run BPFREC_UPDATE=1 cargo test -p bpfrec-format events_h");
    }

    #[test]
    fn no_hidden_padding() {
        for kind in kinds() {
            assert_eq!(kind.row_size % 8, 0, "{}", kind.name);
            assert!(kind.row_size <= 1024);
        }
    }
}
