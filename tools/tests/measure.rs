//! `ccvm measure` on a recorded host: what it prints is compared with golden files, byte for byte.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ccvm` writes them anew; read the diff before you keep it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use golden::Golden;
use serde_json::Value;
use tempfile::TempDir;
use vmm::measure::report::MeasureReport;

/// A Realm with a device that has ccvm add to the command line.
const REALM: &str = "[vm]\nplatform = \"emulated-realm\"\nvcpus = 2\nmemory = \"512 MiB\"\n\n\
                     [boot]\nkernel = \"Image\"\ninitrd = \"initrd\"\ncmdline = \"console=ttyS0\"\n\n\
                     [[device]]\npci = \"0000:00:04.0\"\n";

/// A folder with a config and its boot files.
struct Vm(TempDir);

impl Vm {
    fn new(config: &str) -> Self {
        let vm = Self(tempfile::tempdir().unwrap());
        vm.write("vm.toml", config.as_bytes());
        vm.write("Image", &kernel());
        vm.write("bzImage", &bzimage());
        vm.write("initrd", &[0x42; 5000]);
        vm
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn measure(&self, host: &str, more: &[&str]) -> Output {
        let host = fixtures().join(format!("hosts/{host}.json"));
        Command::new(env!("CARGO_BIN_EXE_ccvm"))
            .current_dir(self.path())
            .args(["measure", "vm.toml", "--host"])
            .arg(host)
            .args(more)
            .output()
            .unwrap()
    }

    /// The document, of a VM that is measured.
    fn document(&self) -> MeasureReport {
        let output = self.measure("qemu-virt", &["--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn digest(&self) -> String {
        self.document().measurement.unwrap().digest
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// An arm64 kernel that clears memory beyond its file (Documentation/arch/arm64/booting.rst of Linux).
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0x11; 6000];
    kernel[8..16].copy_from_slice(&0_u64.to_le_bytes());
    kernel[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
    kernel[56..60].copy_from_slice(b"ARM\x64");
    kernel
}

/// An x86-64 kernel, as far as its loader looks (Documentation/arch/x86/boot.rst of Linux).
fn bzimage() -> Vec<u8> {
    let mut kernel = vec![0; 2 * 512];
    kernel[0x1f1] = 1;
    kernel[0x1f4] = 1;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    kernel[0x211] = 1;
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    kernel[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    kernel[0x234] = 1;
    kernel[0x236] = 3;
    kernel[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    kernel[0x260..0x264].copy_from_slice(&0x40_0000_u32.to_le_bytes());
    kernel.extend([0x1f; 16]);
    kernel
}

#[test]
fn what_is_printed_is_as_recorded() {
    let mut golden = Golden::new("tests/fixtures/golden");
    let vm = Vm::new(REALM);
    for (format, suffix) in [("text", "txt"), ("json", "json")] {
        let output = vm.measure("qemu-virt", &["--format", format]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        golden.compare(&format!("measure.realm.{suffix}"), &printed);
    }
}

#[test]
fn the_page_on_measurements_shows_what_is_printed() {
    let output = Vm::new(REALM).measure("qemu-virt", &[]);
    let page = include_str!("../../docs/measure.md");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains(&printed), "docs/measure.md lacks\n{printed}");
}

#[test]
fn the_document_reads_back_as_it_was_written() {
    let output = Vm::new(REALM).measure("qemu-virt", &["--format", "json"]);
    let document: MeasureReport = serde_json::from_slice(&output.stdout).unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(serde_json::to_value(document).unwrap(), printed);
}

#[test]
fn everything_that_is_loaded_is_measured() {
    let base = Vm::new(REALM).digest();
    assert_eq!(base, Vm::new(REALM).digest(), "the same VM");
    let other_kernel = Vm::new(REALM);
    let mut kernel = kernel();
    *kernel.last_mut().unwrap() ^= 1;
    other_kernel.write("Image", &kernel);
    let other_initrd = Vm::new(REALM);
    other_initrd.write("initrd", &[0x42; 5001]);
    let other_cmdline = Vm::new(&REALM.replace("console", "consola"));
    let more_memory = Vm::new(&REALM.replace("512", "514"));
    let more_vcpus = Vm::new(&REALM.replace("vcpus = 2", "vcpus = 3"));
    let others = [
        other_kernel,
        other_initrd,
        other_cmdline,
        more_memory,
        more_vcpus,
    ];
    let mut digests = vec![base];
    for (index, other) in others.iter().enumerate() {
        let digest = other.digest();
        assert!(!digests.contains(&digest), "{index}");
        digests.push(digest);
    }
}

#[test]
fn flags_and_a_file_that_say_the_same_have_one_measurement() {
    let vm = Vm::new(REALM);
    let host = fixtures().join("hosts/qemu-virt.json");
    let output = Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .current_dir(vm.path())
        .args(["measure", "--format", "json", "--host"])
        .arg(host)
        .args(["--platform", "emulated-realm", "--vcpus", "2"])
        .args(["--memory", "512MiB", "--device", "0000:00:04.0"])
        .args(["--kernel", "Image", "--initrd", "initrd"])
        .args(["--cmdline", "console=ttyS0"])
        .output()
        .unwrap();
    let by_flags: MeasureReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(by_flags, vm.document());
}

#[test]
fn the_device_tree_that_is_measured_can_be_kept() {
    let vm = Vm::new(REALM);
    let output = vm.measure("qemu-virt", &["--device-tree", "tree.dtb"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tree = std::fs::read(vm.path().join("tree.dtb")).unwrap();
    assert_eq!(tree[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    let has = |text: &[u8]| tree.windows(text.len()).any(|window| window == text);
    assert!(has(b"console=ttyS0 swiotlb=16384"));
    assert!(!has(b"rng-seed"), "nobody could foretell it");
    let nowhere = vm.measure("qemu-virt", &["--device-tree", "no/such/folder/tree.dtb"]);
    assert_eq!(nowhere.status.code(), Some(2));
}

/// A config that differs in its platform, on a host; exit code and code.
fn refusal(config: &str, host: &str, exit: i32, code: &str) {
    let vm = Vm::new(config);
    let output = vm.measure(host, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    let report: MeasureReport = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.measurement.is_none());
    let codes: Vec<&str> = report
        .diagnostics
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert!(codes.contains(&code), "{codes:?}, not {code}");
    let text = vm.measure(host, &[]);
    assert_eq!(text.status.code(), Some(exit));
    assert_eq!(text.stdout, b"", "a verifier would take it for a digest");
    assert!(String::from_utf8_lossy(&text.stderr).contains(code));
}

/// What an operator says of a host that runs Realms.
const TOLD: [&str; 6] = ["--rmm", "1.0", "--breakpoints", "6", "--watchpoints", "4"];

/// A config for such a host, without a device of another.
fn realm_on_hardware() -> Vm {
    let (vm, _device) = REALM.split_once("[[device]]").unwrap();
    Vm::new(&vm.replace("emulated-realm", "cca"))
}

fn measure_realm(more: &[&str]) -> Output {
    let vm = realm_on_hardware();
    let told = TOLD.iter().chain(more).copied();
    vm.measure("arm-server", &told.collect::<Vec<_>>())
}

#[test]
fn a_realm_is_measured_for_the_host_that_the_operator_tells_of_and_says_so() {
    let output = measure_realm(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: MeasureReport = serde_json::from_slice(&output.stdout).unwrap();
    let digest = report.measurement.unwrap().digest;
    assert_eq!(digest.len(), 64);
    let finding = report
        .diagnostics
        .iter()
        .find(|finding| finding.code == "CCVM0803");
    let message = &finding.unwrap().message;
    for part in ["RMM 1.0", "6 breakpoints", "4 watchpoints", "TF-RMM 0.6.0"] {
        assert!(message.contains(part), "{message}");
    }
    let text = measure_realm(&[]);
    assert!(String::from_utf8_lossy(&text.stdout).contains(&digest));
    assert!(String::from_utf8_lossy(&text.stderr).contains("CCVM0803"));
}

/// An SNP guest that boots a kernel: what it is told is put together by code for x86-64.
#[cfg(target_arch = "x86_64")]
#[test]
fn an_snp_guest_with_a_kernel_is_measured_and_said_to_be_unproven() {
    let mut golden = Golden::new("tests/fixtures/golden");
    let vm = Vm::new(
        "[vm]\nplatform = \"snp\"\nvcpus = 2\nmemory = \"512 MiB\"\n\n\
         [boot]\nkernel = \"bzImage\"\ninitrd = \"initrd\"\ncmdline = \"console=ttyS0\"\n",
    );
    for (format, suffix) in [("text", "txt"), ("json", "json")] {
        let output = vm.measure("amd-server", &["--format", format]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        golden.compare(&format!("measure.snp.{suffix}"), &printed);
    }
    let output = vm.measure("amd-server", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("CCVM0803") && said.contains("bit 51"),
        "{said}"
    );
    let other = vm.measure("amd-server", &["--encryption-bit", "47"]);
    assert_eq!(other.status.code(), Some(0));
    assert_ne!(other.stdout, output.stdout, "page tables have the bit");
    let none = vm.measure("amd-server", &["--encryption-bit", "12"]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn half_of_what_a_host_has_is_not_enough() {
    let vm = realm_on_hardware();
    for told in [&TOLD[..2], &TOLD[..4], &TOLD[2..], &["--lpa2"]] {
        let output = vm.measure("arm-server", told);
        assert_eq!(output.status.code(), Some(2), "{told:?}: {output:?}");
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn what_cannot_be_foretold_is_refused_with_its_reason() {
    let boot = "[boot]\nkernel = \"Image\"\n";
    let vm =
        |platform: &str| format!("[vm]\nplatform = \"{platform}\"\nmemory = \"512 MiB\"\n{boot}");
    refusal(&vm("none"), "qemu-virt", 1, "CCVM0801");
    refusal(&vm("cca"), "arm-server", 1, "CCVM0802");
    let without_boot = vm("emulated-realm").replace(boot, "");
    refusal(&without_boot, "qemu-virt", 1, "CCVM0401");
    let no_kernel = vm("emulated-realm").replace("Image", "initrd");
    refusal(&no_kernel, "qemu-virt", 1, "CCVM0403");
    let too_large = REALM.replace("512 MiB", "8 GiB");
    refusal(&too_large, "qemu-virt", 1, "CCVM0101");
    refusal(
        &vm("none").replace("memory", "memori"),
        "qemu-virt",
        2,
        "CCVM0202",
    );
}
