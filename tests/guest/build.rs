//! Tells the linker where everything goes.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed=guest.ld");
    println!("cargo::rerun-if-changed=src/start.s");
    println!("cargo::rustc-link-arg-bins=-T{folder}/guest.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        // The payload applies its own relocations: it runs wherever it is loaded.
        "-static-pie",
        "-Wl,--no-dynamic-linker",
        "-Wl,-z,text",
        "-Wl,--build-id=none",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
