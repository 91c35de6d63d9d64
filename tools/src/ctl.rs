//! `ccvm ctl`: asking a running VM, and telling it what to do.

mod prometheus;
mod text;
mod unplug;

use std::path::PathBuf;
use std::process::ExitCode;

use vmm::causes::chain;
use vmm::control::protocol::{Answer, Command, Request, Response, TdiAction};
use vmm::control::{Client, ClientError};
use vmm::host::facts::{Hex, PciAddress};

use crate::output::{complain, print};
use unplug::Waited;

/// Exit code of a command that the VM has not carried out, and of a check that has found something.
const REFUSED: u8 = 1;
/// Exit code when there is no VM to ask.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The socket that 'ccvm run --control' listens at
    socket: PathBuf,
    #[command(subcommand)]
    action: Action,
    /// How to print the answer
    #[arg(long, value_enum, default_value = "text", global = true)]
    format: Format,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the VM has refused, or 'verify' has found a difference, 2 no VM answers there.";

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// The response as it came, one line of JSON
    Json,
    /// For Prometheus; 'metrics' only
    Prometheus,
}

#[derive(clap::Subcommand)]
enum Action {
    /// What the VM is and how it does
    Status,
    /// All counters
    Metrics,
    /// The assigned devices, what they reach and what they were refused
    Devices,
    /// Page states and both DMA tables of each device, by extent
    Map {
        /// Only this device: its address on the host (0000:00:04.0) or the guest's bus (00:01.0)
        device: Option<String>,
        /// Only what ends above this address, such as 0x40000000
        #[arg(long, value_parser = address, default_value = "0x0")]
        from: u64,
        /// At most so many extents of each list
        #[arg(long, default_value_t = 64)]
        limit: u32,
    },
    /// Derive every DMA table from scratch; compare with what is recorded and what the kernel holds
    Verify,
    /// Page conversions so far
    Convert,
    /// Lock, accept, stop or look at the interface of a device
    Tdi {
        /// What to do
        #[arg(value_enum)]
        action: Tdi,
        /// Its address on the host (0000:00:04.0) or the guest's bus (00:01.0)
        device: String,
    },
    /// Give the VM a device of this host, bound to vfio-pci, while it runs
    Plug {
        /// Where it sits on the host (0000:00:04.0)
        device: PciAddress,
        /// The slot that it comes into; without, the first free one
        #[arg(long)]
        slot: Option<u8>,
        /// How many address bits it drives, when you know better
        #[arg(long)]
        dma_bits: Option<u8>,
    },
    /// Have the guest give a device up that was plugged, and take it back
    Unplug {
        /// Its address on the host (0000:00:04.0) or the guest's bus (01:00.0)
        device: String,
        /// Take it at once, whatever the guest does with it
        #[arg(long)]
        force: bool,
        /// How long to wait for the guest
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u32,
    },
    /// Hold the vCPUs; DMA of devices goes on
    Pause,
    /// Let the vCPUs go on
    Resume,
    /// Press the power button: the guest is asked to turn itself off
    Powerbutton,
    /// End the VM; the guest is not asked
    Stop,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Tdi {
    /// Lock its configuration
    Lock,
    /// Accept it: it reaches private pages
    Start,
    /// Take private pages out of its reach, and unlock it
    Stop,
    /// What the guest would be told of it
    Report,
}

fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x");
    let digits = digits.ok_or("an address begins with 0x")?;
    u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

impl Action {
    fn command(&self) -> Command {
        match self {
            Self::Status => Command::Status {},
            Self::Metrics => Command::Metrics {},
            Self::Devices => Command::Devices {},
            Self::Map {
                device,
                from,
                limit,
            } => Command::Map {
                device: device.clone(),
                from: Some(Hex(*from)),
                limit: Some(*limit),
            },
            Self::Verify => Command::Verify {},
            Self::Convert => Command::Convert {},
            Self::Tdi { action, device } => Command::Tdi {
                action: match action {
                    Tdi::Lock => TdiAction::Lock,
                    Tdi::Start => TdiAction::Start,
                    Tdi::Stop => TdiAction::Stop,
                    Tdi::Report => TdiAction::Report,
                },
                device: device.clone(),
            },
            Self::Plug {
                device,
                slot,
                dma_bits,
            } => Command::Plug {
                device: *device,
                slot: *slot,
                dma_bits: *dma_bits,
            },
            Self::Unplug { device, force, .. } => Command::Unplug {
                device: device.clone(),
                force: *force,
            },
            Self::Pause => Command::Pause {},
            Self::Resume => Command::Resume {},
            Self::Powerbutton => Command::Powerbutton {},
            Self::Stop => Command::Stop {},
        }
    }
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let is_metrics = matches!(args.action, Action::Metrics);
    if matches!(args.format, Format::Prometheus) && !is_metrics {
        complain("only `metrics` has a form for Prometheus");
        return ExitCode::from(UNUSABLE);
    }
    match ask(args) {
        Ok((response, Waited::Done)) => show(&response, args.format),
        Ok((_, Waited::InVain(why))) => {
            complain(&why);
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            complain(&chain(&error));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn ask(args: &Args) -> Result<(Response, Waited), ClientError> {
    let request = Request::new(args.action.command());
    let mut response = Client::connect(&args.socket)?.ask(&request)?;
    let waited = match args.action {
        Action::Unplug { wait, .. } => {
            unplug::wait(&args.socket, &request.command, &mut response, wait)?
        }
        _ => Waited::Done,
    };
    Ok((response, waited))
}

fn show(response: &Response, format: Format) -> ExitCode {
    match format {
        Format::Json => match serde_json::to_string(response) {
            Ok(line) => print(&format!("{line}\n")),
            Err(error) => complain(&error.to_string()),
        },
        Format::Text | Format::Prometheus => match &response.answer {
            Answer::Error(failure) => complain(&failure.message),
            Answer::Metrics(metrics) if matches!(format, Format::Prometheus) => {
                print(&prometheus::of(metrics));
            }
            answer => print(&text::of(answer)),
        },
    }
    match &response.answer {
        Answer::Error(_) => ExitCode::from(REFUSED),
        Answer::Verify(verification) if !verification.clean => ExitCode::from(REFUSED),
        _ => ExitCode::SUCCESS,
    }
}
