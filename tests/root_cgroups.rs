//! Needs root: what happens in cgroups is told apart, also after they are gone.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use common::*;

#[test]
fn root_a_group_made_and_removed_meanwhile_shows_by_its_path() {
    let Some(_alone) = alone_as_root("removed cgroup") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let group = format!("bpfrec-gone-{}", std::process::id());
    let script = format!(
        "mkdir {mount}/{group} {mount}/{group}/inner
         sh -c 'echo $$ >{mount}/{group}/inner/cgroup.procs; exec {sleeper} 50'
         rmdir {mount}/{group}/inner {mount}/{group}",
        mount = cgroup_mount().display(),
        sleeper = load("sleeper").display(),
    );
    record_while(&scratch, &trace, &["-e", "sched"], &script);
    assert_no_loss(&trace);
    let inner = format!("/{group}/inner");

    let by_group = report("runqlat", &trace, &["--cgroup", &inner]);
    let (waits, _) = totals(&by_group);
    assert!((50..=70).contains(&waits), "{waits} waits in {inner}: {by_group}");
    // A group counts for what is below it.
    let (above, _) = totals(&report("runqlat", &trace, &["--cgroup", &format!("/{group}")]));
    assert!(above >= waits, "{above} in the group above, {waits} in {inner}");
    let mut made = false;
    replay(&trace, |event| made |= event["kind"] == "cgroup_mkdir" && event["path"].as_str() == Some(&*inner));
    assert!(made, "no cgroup_mkdir of {inner} in the trace");
}

#[test]
fn root_io_and_waits_of_two_groups_are_told_apart() {
    let Some(_alone) = alone_as_root("two cgroups") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let name = |n: u32| format!("bpfrec-pair-{}-{n}", std::process::id());
    let script = format!(
        "mkdir {mount}/{one} {mount}/{two}
         # Far apart on the disk: neighbours' writes are merged now and then.
         for f in f1 gap-a gap-b gap-c f2; do {directio} $dir/$f 0; done
         sync
         sh -c 'echo $$ >{mount}/{one}/cgroup.procs; {directio} $dir/f1 300; exec {sleeper} 40' &
         sh -c 'echo $$ >{mount}/{two}/cgroup.procs; {directio} $dir/f2 700; exec {sleeper} 90' &
         wait
         rmdir {mount}/{one} {mount}/{two}",
        mount = cgroup_mount().display(),
        one = name(1),
        two = name(2),
        directio = load("directio").display(),
        sleeper = load("sleeper").display(),
    );
    record_while(&scratch, &trace, &["-e", "sched,block"], &script);
    assert_no_loss(&trace);
    for (n, ios, sleeps) in [(1, 300, 40), (2, 700, 90)] {
        let group = format!("/{}", name(n));
        let (done, _) = totals(&report("biolatency", &trace, &["--cgroup", &group]));
        assert!((ios..=ios + ios / 20).contains(&done), "{done} I/Os in {group}, {ios} were made");
        // A write that waits for the disk is a wait for the CPU too, once it is done.
        let (waits, _) = totals(&report("runqlat", &trace, &["--cgroup", &group]));
        assert!((sleeps..=(sleeps + 2 * ios)).contains(&waits), "{waits} waits in {group}");
    }
}

#[test]
fn root_only_the_chosen_group_is_recorded() {
    let Some(_alone) = alone_as_root("filter by cgroup") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let group = format!("bpfrec-only-{}", std::process::id());
    let path = cgroup_mount().join(&group);
    std::fs::create_dir_all(path.join("inner")).unwrap();
    let script = format!(
        "sh -c 'echo $$ >{path}/inner/cgroup.procs; exec {sleeper} 50' & {sleeper} 50; wait",
        path = path.display(),
        sleeper = load("sleeper").display(),
    );
    let option = format!("/{group}");
    record_while(&scratch, &trace, &["-e", "sched", "--cgroup", &option], &script);
    std::fs::remove_dir(path.join("inner")).unwrap();
    std::fs::remove_dir(&path).unwrap();

    let (all, _) = totals(&report("runqlat", &trace, &[]));
    let (inside, _) = totals(&report("runqlat", &trace, &["--cgroup", &option]));
    assert!((50..=70).contains(&inside), "{inside} waits inside");
    assert_eq!(all, inside, "waits outside the group are in the trace");
}
