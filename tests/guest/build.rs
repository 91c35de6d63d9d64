//! Tells the linker where everything goes.

use std::env;

/// The payload applies its own relocations: it runs wherever it is loaded.
const AARCH64: &[&str] = &["-static-pie", "-Wl,--no-dynamic-linker", "-Wl,-z,text"];
/// PVH loads it where it is linked.
const X86_64: &[&str] = &["-no-pie", "-static", "-Wl,-z,noexecstack"];

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    println!("cargo::rerun-if-changed={arch}.ld");
    println!("cargo::rerun-if-changed=src/{arch}/start.s");
    println!("cargo::rustc-link-arg-bins=-T{folder}/{arch}.ld");
    let own = match arch.as_str() {
        "x86_64" => X86_64,
        _ => AARCH64,
    };
    let common = ["-nostartfiles", "-nostdlib", "-Wl,--build-id=none"];
    for argument in common.iter().chain(own) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
