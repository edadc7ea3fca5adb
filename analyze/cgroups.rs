//! Cgroup ids, their paths, and when they were there.

use rustc_hash::{FxHashMap, FxHashSet};

use bpfrec_format::container::{self, Names};

use crate::error::{Error, Result};
use crate::view::View;

/// A cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Path from the hierarchy's root.
    pub path: String,
    /// Id of the one above.
    pub parent_id: u64,
    /// First moment it is known of, CLOCK_MONOTONIC.
    pub first_ns: u64,
    /// Its removal; `None` while it is there.
    pub removed_ns: Option<u64>,
    /// Moment of the path, so that the latest one stands.
    path_ns: u64,
    /// What the path says, as the file has it, or read out of the path.
    pub names: Names,
}

/// All cgroups of a trace.
#[derive(Debug, Default)]
pub struct Cgroups(FxHashMap<u64, Cgroup>);

impl Cgroups {
    /// Takes over `cgroup`, `cgroup_mkdir`, `cgroup_rename` or `cgroup_rmdir` rows.
    pub(crate) fn add(&mut self, kind: &str, view: View<'_>) {
        let (ts, id, parent) = (view.ints("ts_ns"), view.ints("cgroup_id"), view.ints("parent_id"));
        let path = view.texts("path");
        let names = ["runtime", "container_id", "pod_uid", "unit"].map(|name| view.texts(name));
        for row in 0..view.rows() {
            let ts = ts.get(row);
            let cgroup = self.0.entry(id.get(row)).or_insert_with(|| Cgroup { first_ns: ts, ..Cgroup::default() });
            cgroup.first_ns = cgroup.first_ns.min(ts);
            if kind == "cgroup_rmdir" {
                cgroup.removed_ns = Some(ts);
            }
            let text = path.get(row);
            if !text.is_empty() && (cgroup.path.is_empty() || ts >= cgroup.path_ns) {
                cgroup.path = String::from_utf8_lossy(text).into_owned();
                cgroup.path_ns = ts;
                let [runtime, container_id, pod_uid, unit] =
                    names.map(|texts| Some(texts.string(row)).filter(|t| !t.is_empty()));
                cgroup.names = Names { runtime, container_id, pod_uid, unit };
            }
            if parent.get(row) != 0 {
                cgroup.parent_id = parent.get(row);
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        let bare = self.0.values_mut().filter(|cgroup| cgroup.names == Names::default());
        bare.for_each(|cgroup| cgroup.names = container::names(&cgroup.path));
    }

    /// The cgroup with this id.
    pub fn get(&self, id: u64) -> Option<&Cgroup> {
        self.0.get(&id)
    }

    /// Its path, or its id where the trace has no path.
    pub fn path(&self, id: u64) -> String {
        match self.0.get(&id) {
            Some(cgroup) if !cgroup.path.is_empty() => cgroup.path.clone(),
            _ => format!("cgroup {id}"),
        }
    }

    /// All of them by id.
    pub fn sorted(&self) -> Vec<(u64, &Cgroup)> {
        let mut all: Vec<_> = self.0.iter().map(|(id, cgroup)| (*id, cgroup)).collect();
        all.sort_unstable_by_key(|(id, _)| *id as i64);
        all
    }

    /// Ids of the cgroup at `path` and of all below it, or of a container by the first digits of its id.
    pub fn matching(&self, asked: &str) -> Result<FxHashSet<u64>> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let below_mount = |m: &&str| asked.strip_prefix(*m).filter(|p| p.starts_with('/'));
        let path = mounts.iter().find_map(below_mount).unwrap_or(asked);
        let path = path.trim_end_matches('/');
        let below = |p: &str| p.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut ids: FxHashSet<u64> =
            self.0.iter().filter(|(_, c)| path.is_empty() || below(&c.path)).map(|(id, _)| *id).collect();
        if ids.is_empty() && asked.len() >= 4 && !asked.contains('/') {
            let named = |c: &Cgroup| c.names.container_id.as_ref().is_some_and(|id| id.starts_with(asked));
            ids = self.0.iter().filter(|(_, c)| named(c)).map(|(id, _)| *id).collect();
        }
        if ids.is_empty() {
            return Err(Error::asked(format!(
                "no cgroup `{asked}` in the trace: give its path from the root, as /system.slice/nginx.service, or \
                 the first digits of a container id"
            )));
        }
        Ok(ids)
    }
}
