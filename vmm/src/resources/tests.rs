use std::path::{Path, PathBuf};

use kvm::ram::HostPages;
use tempfile::TempDir;

use super::*;
use crate::check::{Check, Judgement};
use crate::config::Source;
use crate::host::Roots;
use crate::plan::PlanOptions;

const GIB: u64 = 1 << 30;

/// A host with 3 of 8 huge pages of 2 MiB free, 1 GiB of memory left, and memory on nodes 0 and 2.
fn host() -> (TempDir, Roots) {
    let folder = tempfile::tempdir().unwrap();
    let sysfs = folder.path().join("sys");
    let pool = sysfs.join("kernel/mm/hugepages/hugepages-2048kB");
    let files: [(PathBuf, &str); 6] = [
        (pool.join("nr_hugepages"), "8\n"),
        (pool.join("free_hugepages"), "4\n"),
        (pool.join("resv_hugepages"), "1\n"),
        (pool.join("surplus_hugepages"), "0\n"),
        (sysfs.join("devices/system/node/has_memory"), "0,2\n"),
        (
            folder.path().join("proc/meminfo"),
            "MemTotal: 9 kB\nMemAvailable:    1048576 kB\n",
        ),
    ];
    for (path, text) in files {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let roots = Roots {
        sysfs,
        procfs: folder.path().join("proc"),
        dev: folder.path().join("dev"),
        state: folder.path().join("run"),
    };
    (folder, roots)
}

fn found(spec: &ResourceSpec, memory: u64) -> Vec<(Code, String)> {
    let (_folder, roots) = host();
    let findings = of_host(spec, memory, &roots).into_iter();
    findings
        .map(|finding| {
            (
                finding.code,
                finding.message + " | " + &finding.help.unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_pool_must_have_enough_pages_of_the_size() {
    let pages = |huge_pages| ResourceSpec {
        huge_pages,
        prefault: true,
        ..ResourceSpec::default()
    };
    assert_eq!(found(&pages(HostPages::Huge2M), 6 << 20), []);
    let [(code, message)] = &found(&pages(HostPages::Huge2M), 16 << 20)[..] else {
        panic!("not one finding");
    };
    assert_eq!(*code, Code::HugePagesMissing);
    assert!(message.starts_with("16 MiB of memory need 8 huge pages of 2 MiB, and 3 are free"));
    assert!(message.contains("echo 13 >"), "{message}");
    let [(code, message)] = &found(&pages(HostPages::Huge1G), GIB)[..] else {
        panic!("not one finding");
    };
    assert_eq!(*code, Code::HugePagesMissing);
    assert!(message.starts_with("this host has no huge pages of 1 GiB"));
}

#[test]
fn memory_that_is_filled_must_be_there() {
    let filled = ResourceSpec {
        prefault: true,
        ..ResourceSpec::default()
    };
    assert_eq!(found(&filled, GIB), []);
    assert_eq!(found(&ResourceSpec::default(), 2 * GIB), []);
    let [(code, message)] = &found(&filled, 2 * GIB)[..] else {
        panic!("not one finding");
    };
    assert_eq!(*code, Code::NotPrefaulted);
    assert!(
        message.contains("2 GiB of memory") && message.contains("1 GiB left"),
        "{message}"
    );
}

#[test]
fn nodes_and_cpus_must_be_there() {
    let nodes = |list: &str| ResourceSpec {
        numa_nodes: Some(list.parse().unwrap()),
        ..ResourceSpec::default()
    };
    assert_eq!(found(&nodes("2,0"), GIB), []);
    let [(code, message)] = &found(&nodes("0-2"), GIB)[..] else {
        panic!("not one finding");
    };
    assert_eq!(*code, Code::NumaNodeAbsent);
    assert!(
        message.contains("node 1") && message.ends_with("memory: 0,2"),
        "{message}"
    );
    let pin = |list: &str| ResourceSpec {
        pin_vcpus: Some(list.parse().unwrap()),
        ..ResourceSpec::default()
    };
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cpus = 0..1024usize;
    let there = cpus.clone().find(|cpu| allowed.is_set(*cpu)).unwrap();
    assert_eq!(found(&pin(&there.to_string()), GIB), []);
    let absent = cpus.find(|cpu| !allowed.is_set(*cpu)).unwrap();
    let [(code, message)] = &found(&pin(&absent.to_string()), GIB)[..] else {
        panic!("not one finding");
    };
    assert_eq!(*code, Code::CpuAbsent);
    assert!(message.contains(&format!("CPU {absent}")), "{message}");
}

fn check(config: &str) -> Check {
    let facts = include_str!("../../../tests/fixtures/hosts/qemu-virt.json");
    let facts = crate::host::from_json(facts).unwrap();
    let source = Source::new("vm.toml", config);
    Check::new(source, Path::new(""), Ok(facts), PlanOptions::default())
}

#[test]
fn huge_pages_must_fit_the_vm_on_every_host() {
    let config = |platform: &str, memory: &str, pages: &str| {
        format!(
            "[vm]\nplatform = '{platform}'\nmemory = '{memory}'\n[resources]\nhuge-pages = '{pages}'\n"
        )
    };
    for (platform, memory, pages, help) in [
        ("none", "512 MiB", "2 MiB", None),
        ("none", "2 GiB", "1 GiB", None),
        ("emulated-realm", "512 MiB", "transparent", None),
        ("none", "1536 MiB", "1 GiB", Some("a multiple of \"1 GiB\"")),
        (
            "emulated-realm",
            "512 MiB",
            "2 MiB",
            Some("leave out `huge-pages`"),
        ),
    ] {
        let check = check(&config(platform, memory, pages));
        let findings = &check.findings.last().unwrap().diagnostics;
        let Some(help) = help else {
            assert_eq!(findings[..], [], "{platform} {memory} {pages}");
            continue;
        };
        assert_eq!(check.judgement(), Judgement::Rejected);
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.code, Code::HugePagesImpossible);
        assert!(
            finding.help.as_deref().unwrap().contains(help),
            "{finding:?}"
        );
        let source = check.findings.last().unwrap().source.as_ref().unwrap();
        let line = source.position(finding.span.as_ref().unwrap().start).line;
        assert_eq!(line, 5);
    }
}
