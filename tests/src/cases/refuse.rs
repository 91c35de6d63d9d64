//! What `ccvm run` refuses: with a code, before anything is touched.

use anyhow::ensure;

use crate::arch::EVERY;
use crate::case::{Case, Guest, Host, Platform, in_one_line, within};
use crate::devices::Role;
use crate::guest::Program;
use crate::machine::{Output, Script};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_file_that_is_no_kernel_is_refused",
        on: EVERY,
        needs: &[],
        run: not_a_kernel,
    },
    Case {
        name: "a_truncated_initrd_is_refused",
        on: EVERY,
        needs: &[],
        run: truncated_initrd,
    },
    Case {
        name: "a_device_that_is_not_there_is_refused",
        on: EVERY,
        needs: &[],
        run: absent_device,
    },
    Case {
        name: "a_device_of_the_hosts_driver_is_refused_with_the_command_that_moves_it",
        on: EVERY,
        needs: &[Role::Ahci],
        run: bound_to_the_host,
    },
    Case {
        name: "a_group_with_a_device_of_the_host_is_refused_and_the_device_named",
        on: EVERY,
        needs: &[Role::Tied],
        run: foreign_member,
    },
    Case {
        name: "a_host_without_kvm_is_refused",
        on: EVERY,
        needs: &[],
        run: no_kvm,
    },
    Case {
        name: "a_user_without_permission_is_refused",
        on: EVERY,
        needs: &[],
        run: no_permission,
    },
];

/// A config that would run, for tests to break.
fn good_config(host: &Host<'_>) -> anyhow::Result<String> {
    let platform = Platform::hardest(host.arch);
    Guest::new(platform, Program::Payload("facts")).config(host)
}

/// A config with another value for a key of `[boot]`.
fn with(config: &str, key: &str, value: &str) -> String {
    let key = format!("{key} = ");
    let rest = config.lines().filter(|line| !line.starts_with(&key));
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    rest.replace("[boot]\n", &format!("[boot]\n{key}\"{value}\"\n"))
}

/// Runs a config under a shell prefix and expects a refusal.
fn refused(host: &mut Host<'_>, prefix: &str, config: &str, code: &str) -> anyhow::Result<Output> {
    host.machine
        .write("/run/ccvm-test.toml", config.as_bytes())?;
    let command = format!("{} run /run/ccvm-test.toml", host.ccvm);
    let script = match prefix {
        "" => command,
        prefix => format!("{prefix} '{}'", command.replace('\'', "'\\''")),
    };
    let output = host.machine.run(&Script::quick(within(40, &script)))?;
    let Output { status, text } = &output;
    ensure!(
        matches!(status, 1 | 2),
        "the exit status is {status}:\n{text}"
    );
    ensure!(text.contains(code), "no {code} in\n{text}");
    ensure!(!text.contains("result=pass"), "the guest ran:\n{text}");
    Ok(output)
}

fn not_a_kernel(host: &mut Host<'_>) -> anyhow::Result<()> {
    let initrd = format!("{}/guest.cpio", host.files);
    let config = with(&good_config(host)?, "kernel", &initrd);
    refused(host, "", &config, "CCVM0403").map(drop)
}

fn truncated_initrd(host: &mut Host<'_>) -> anyhow::Result<()> {
    let files = host.files.clone();
    host.machine.read(&format!(
        "head -c 1000001 {files}/guest.cpio >/run/ccvm-cut.cpio"
    ))?;
    let config = with(&good_config(host)?, "initrd", "/run/ccvm-cut.cpio");
    refused(host, "", &config, "CCVM0406").map(drop)
}

fn absent_device(host: &mut Host<'_>) -> anyhow::Result<()> {
    let config = good_config(host)? + "\n[[device]]\npci = \"0000:7f:1f.7\"\n";
    let output = refused(host, "", &config, "CCVM0550")?;
    ensure!(output.text.contains("0000:7f:1f.7"), "{}", output.text);
    Ok(())
}

fn bound_to_the_host(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.unbind(&[Role::Ahci])?;
    let address = host.address(Role::Ahci)?;
    let config = good_config(host)? + &format!("\n[[device]]\npci = \"{address}\"\n");
    let driver = format!("readlink /sys/bus/pci/devices/{address}/driver");
    let before = host.machine.read(&driver)?;
    let output = refused(host, "", &config, "CCVM05")?;
    let command = format!("ccvm device bind {address}");
    ensure!(
        output.text.contains(&command),
        "no `{command}` in\n{}",
        output.text
    );
    ensure!(
        host.machine.read(&driver)? == before,
        "the device was taken from its driver"
    );
    Ok(())
}

fn foreign_member(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::Tied])?;
    let address = host.address(Role::Tied)?;
    let other = format!("{}1", address.trim_end_matches('0'));
    let config =
        good_config(host)? + &format!("\n[[device]]\npci = \"{address}\"\ndma-bits = 36\n");
    let output = refused(host, "", &config, "CCVM0511")?;
    ensure!(
        output.text.contains(&other),
        "{other} is not named in\n{}",
        output.text
    );
    host.unbind(&[Role::Tied])
}

fn no_kvm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let config = good_config(host)?;
    let empty = "unshare -m sh -c 'mount -t tmpfs none /dev; eval \"$1\"' -";
    refused(host, empty, &config, "CCVM0115").map(drop)
}

fn no_permission(host: &mut Host<'_>) -> anyhow::Result<()> {
    let config = good_config(host)?;
    let output = refused(host, "su nobody -s /bin/sh -c", &config, "CCVM0115")?;
    let cause = "no permission to open /dev/kvm";
    ensure!(in_one_line(&output.text).contains(cause), "{}", output.text);
    Ok(())
}
