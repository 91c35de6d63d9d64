//! `ccvm host`: what this host offers, as a table for people or as the facts document.

use std::fmt::Write as _;
use std::process::ExitCode;

use vmm::host::class::{class_name, is_bridge};
use vmm::host::facts::{Arch, DeviceFacts, HostFacts, KvmFacts, VfioFacts};
use vmm::plan::dma_width;

use crate::output::print;
use crate::table::Table;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the facts document, for 'ccvm check --host'
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let facts = vmm::host::read();
    let text = if args.json {
        match serde_json::to_string_pretty(&facts) {
            Ok(json) => json + "\n",
            Err(_) => return ExitCode::from(2),
        }
    } else {
        describe(&facts)
    };
    print(&text);
    ExitCode::SUCCESS
}

/// The whole answer for people.
fn describe(facts: &HostFacts) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "KVM   {}", kvm_verdict(facts));
    for lacking in facts.kvm.iter().flat_map(|kvm| &kvm.lacking) {
        let _ = writeln!(text, "      no '{}': {}", lacking.platform, lacking.reason);
    }
    if let Some(vfio) = &facts.vfio {
        let _ = writeln!(text, "VFIO  {}", vfio_verdict(vfio));
    }
    let _ = writeln!(text, "PCI   {}", pci_verdict(&facts.devices));
    if !facts.devices.is_empty() {
        let _ = write!(text, "\n{}", devices(&facts.devices));
    }
    if !facts.unknown.is_empty() {
        let _ = writeln!(text, "\nNot known:");
        for sentence in &facts.unknown {
            let _ = writeln!(text, "  - {sentence}");
        }
    }
    text
}

fn kvm_verdict(facts: &HostFacts) -> String {
    match &facts.kvm {
        None => "not usable: 'ccvm run' will not work, 'ccvm check' will".to_owned(),
        Some(kvm) => format!(
            "api {}, {}, platforms: {}",
            kvm.api,
            address_bits(facts.arch, kvm),
            platforms(kvm),
        ),
    }
}

fn address_bits(arch: Arch, kvm: &KvmFacts) -> String {
    let (name, bits) = match arch {
        Arch::Aarch64 => ("guest-physical (IPA)", kvm.ipa_bits_max),
        Arch::X86_64 => ("physical", kvm.phys_bits),
    };
    match bits {
        Some(bits) => format!("{bits} {name} address bits"),
        None => format!("{name} address bits unknown"),
    }
}

fn platforms(kvm: &KvmFacts) -> String {
    let names: Vec<_> = kvm
        .platforms
        .iter()
        .filter_map(|platform| serde_json::to_value(platform).ok())
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    match names.as_slice() {
        [] => "not known".to_owned(),
        names => names.join(", "),
    }
}

/// What DMA tables can be made with; the one that ccvm takes comes first.
fn vfio_verdict(vfio: &VfioFacts) -> String {
    let mut offers = Vec::new();
    if vfio.iommufd {
        offers.push("iommufd".to_owned());
    }
    if vfio.type1 {
        offers.push(match vfio.dma_entry_limit {
            Some(limit) => format!("type1 of at most {limit} mappings"),
            None => "type1".to_owned(),
        });
    }
    match offers.is_empty() {
        true => "not usable: `modprobe vfio-pci` loads it; without it no device can be assigned"
            .to_owned(),
        false => format!("DMA tables by {}", offers.join(", else ")),
    }
}

fn pci_verdict(devices: &[DeviceFacts]) -> String {
    let groups: std::collections::BTreeSet<_> =
        devices.iter().filter_map(|device| device.group).collect();
    let ready = devices.iter().filter(|device| is_ready(device)).count();
    format!(
        "{} functions in {} IOMMU groups; {ready} ready for a VM",
        devices.len(),
        groups.len(),
    )
}

fn is_ready(device: &DeviceFacts) -> bool {
    device.iova_ranges.is_some()
}

/// A table of devices, one line each.
pub(crate) fn devices(devices: &[DeviceFacts]) -> String {
    let mut table = Table::new([
        "ADDRESS", "DEVICE", "IDS", "GROUP", "DRIVER", "MASKS", "DMA BITS",
    ]);
    for device in devices {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            device.pci.to_string(),
            class_name(device.class.0).to_owned(),
            format!("{:04x}:{:04x}", device.vendor.0, device.device.0),
            or_dash(device.group.map(|group| group.to_string())),
            or_dash(device.driver.clone()),
            masks(device),
            assumed(device),
        ]);
    }
    table.to_string()
}

/// `STREAMING/COHERENT`, as the last driver set them.
fn masks(device: &DeviceFacts) -> String {
    let bits = |bits: Option<u8>| bits.map_or_else(|| "?".to_owned(), |bits| bits.to_string());
    format!(
        "{}/{}",
        bits(device.dma_mask_bits),
        bits(device.coherent_dma_mask_bits)
    )
}

/// The width that a plan takes from these facts alone, and who says so.
fn assumed(device: &DeviceFacts) -> String {
    if is_bridge(device.class.0) {
        return "-".to_owned();
    }
    let width = dma_width(device);
    format!("{} ({})", width.bits, width.source.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str = r#"{"schema":1,"arch":"aarch64",
        "kvm":{"api":12,"ipa_bits_max":48,"platforms":["none","emulated-realm"],
               "lacking":[{"platform":"cca","reason":"its KVM is plain"}]},
        "vfio":{"type1":true,"iommufd":true,"dma_entry_limit":65535},"devices":[
        {"pci":"0000:00:00.0","vendor":"0x1b36","device":"0x0008","class":"0x060000"},
        {"pci":"0000:00:04.0","vendor":"0x8086","device":"0x100e","class":"0x020000","group":3,
         "driver":"vfio-pci","dma_mask_bits":32,"coherent_dma_mask_bits":32,
         "iova_ranges":[{"start":"0x0","end":"0xffffffff"}]},
        {"pci":"0000:00:05.0","vendor":"0x1234","device":"0x5678","class":"0x0b4000","group":4,
         "driver":"qat","dma_mask_bits":64,"coherent_dma_mask_bits":48}],
        "unknown":["a thing: it cannot be read"]}"#;

    #[test]
    fn a_host_is_described_in_a_verdict_and_a_table() {
        let facts = vmm::host::from_json(FACTS).unwrap();
        assert_eq!(
            describe(&facts),
            "\
KVM   api 12, 48 guest-physical (IPA) address bits, platforms: none, emulated-realm
      no 'cca': its KVM is plain
VFIO  DMA tables by iommufd, else type1 of at most 65535 mappings
PCI   3 functions in 2 IOMMU groups; 1 ready for a VM

ADDRESS       DEVICE               IDS        GROUP  DRIVER    MASKS  DMA BITS
0000:00:00.0  host bridge          1b36:0008  -      -         ?/?    -
0000:00:04.0  Ethernet controller  8086:100e  3      vfio-pci  32/32  32 (table)
0000:00:05.0  processor            1234:5678  4      qat       64/48  48 (sysfs)

Not known:
  - a thing: it cannot be read
"
        );
    }

    #[test]
    fn a_host_without_kvm_can_still_check() {
        let facts = vmm::host::from_json(r#"{"schema":1,"arch":"x86_64"}"#).unwrap();
        let text = describe(&facts);
        assert!(text.starts_with("KVM   not usable"), "{text}");
        assert!(text.contains("0 functions"), "{text}");
    }
}
