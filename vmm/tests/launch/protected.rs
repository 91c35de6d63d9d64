//! A protected VM of pKVM.

use scripted::{Exit, Form, Host, Kernel};
use vmm::platform::Platform;
use vmm::run::Ending;

use crate::{launch, of_the_vm, planned};

#[test]
fn a_protected_vm_is_an_ordinary_one_of_another_type() {
    let facts = r#"{"schema":1,"arch":"aarch64",
        "kvm":{"api":12,"ipa_bits_max":48,"platforms":["none","emulated-realm","pkvm"]}}"#;
    let mut host = Host::new(Form::None);
    host.pkvm = true;
    let kernel = Kernel::start(host);
    kernel.exit(0, Exit::SystemEvent(1));
    let plan = planned(facts, 1, Some(40));
    assert_eq!(plan.platform(), Platform::Pkvm, "`auto` takes it");
    let (ending, _) = launch(&plan).unwrap().wait();
    assert_eq!(ending, Ending::PowerOff);
    let calls = of_the_vm(&kernel);
    assert_eq!(
        calls[..6],
        [
            "kvm CREATE_VM 0x80000028",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm SET_USER_MEMORY_REGION 0 flags 0 at 0x40000000 0x10000000",
            "vm CHECK_EXTENSION 177",
            "vm CREATE_DEVICE type 7 flags 0",
            "device SET_DEVICE_ATTR 0.2 0x1100000",
        ]
    );
    let filtered = calls
        .iter()
        .any(|call| call.contains("SET_DEVICE_ATTR 0.0"));
    assert!(!filtered, "it has no filter of calls: {calls:#?}");
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_host_that_is_not_pkvm_refuses_it() {
    let facts = r#"{"schema":1,"arch":"aarch64",
        "kvm":{"api":12,"ipa_bits_max":48,"platforms":["none","pkvm"]}}"#;
    let kernel = Kernel::start(Host::new(Form::None));
    let refused = launch(&planned(facts, 1, None)).map(drop).unwrap_err();
    let finding = refused.diagnose();
    assert!(finding.message.contains("protected VM"), "{finding}");
    assert_eq!(kernel.open_files(), 0);
}
