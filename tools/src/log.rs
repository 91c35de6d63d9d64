//! What a run says on stderr: findings, log and ending, for people or as lines of JSON.

use std::io::Write as _;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use vmm::check::FileFindings;
use vmm::report::document::{Finding, FindingSeverity};
use vmm::report::{self, Style};
use vmm::run::Screen;

use crate::output;

/// The variable that says how much is logged.
const VARIABLE: &str = "CCVM_LOG";
/// How much is logged when it says nothing.
const USUAL: LevelFilter = LevelFilter::WARN;
/// Targets of what is said whatever the filter.
const ALWAYS: [&str; 2] = ["finding", "ending"];

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The voice of a run.
pub(crate) struct Log {
    format: Format,
    screen: Arc<Screen>,
}

impl Log {
    /// Starts logging.
    pub(crate) fn start(format: Format) -> Self {
        let (filter, complaint) = filter(std::env::var(VARIABLE).ok().as_deref());
        let screen = Screen::of_this_process();
        let for_lines = Arc::clone(&screen);
        let lines =
            tracing_subscriber::fmt::layer().with_writer(move || for_lines.log(std::io::stderr()));
        let lines = match format {
            Format::Text => lines
                .with_target(false)
                .with_ansi(style() == Style::Coloured)
                .boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .init();
        if let Some(complaint) = complaint {
            tracing::warn!("{complaint}");
        }
        Self { format, screen }
    }

    /// What a run writes its console to.
    pub(crate) fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    /// Says what was found.
    pub(crate) fn findings(&self, files: &[FileFindings]) {
        for file in files {
            match self.format {
                Format::Text => {
                    let source = file.source.as_ref();
                    let text = report::findings(&file.diagnostics, source, style());
                    if !text.is_empty() {
                        self.line(text.trim_end());
                    }
                }
                Format::Json => Finding::all_of(file).for_each(|finding| log(&finding)),
            }
        }
    }

    /// Shows how far the filling of guest memory is, to people at a terminal.
    pub(crate) fn progress(&self) -> crate::progress::Progress {
        crate::progress::Progress::new(self.format == Format::Text)
    }

    /// Says how the run has ended.
    pub(crate) fn ending(&self, ending: &vmm::run::Ending) {
        match self.format {
            Format::Text => self.line(&format!("ccvm: {ending}")),
            Format::Json => tracing::info!(
                target: "ending",
                ending = ending.name(),
                exit_code = ending.exit_code(),
                "{ending}"
            ),
        }
    }

    /// A reader that has gone away changes nothing.
    fn line(&self, text: &str) {
        let mut stderr = self.screen.log(std::io::stderr());
        let _ = stderr.write_all(format!("{text}\n").as_bytes());
    }
}

/// What to log, and what is wrong with how that was asked for.
fn filter(asked: Option<&str>) -> (Targets, Option<String>) {
    let usual = || Targets::new().with_default(USUAL);
    let (filter, complaint) = match asked.map(str::parse) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => {
            let complaint = format!("{VARIABLE} is not understood, and taken for {USUAL}: {error}");
            (usual(), Some(complaint))
        }
        None => (usual(), None),
    };
    let always = ALWAYS.map(|target| (target, LevelFilter::TRACE));
    (filter.with_targets(always), complaint)
}

fn log(finding: &Finding) {
    let device = finding.device.map(|device| device.to_string());
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                target: "finding",
                code = finding.code,
                help = finding.help,
                device,
                file = finding.file,
                line = finding.line,
                column = finding.column,
                "{}",
                finding.message
            )
        };
    }
    match finding.severity {
        FindingSeverity::Error => event!(error),
        FindingSeverity::Warning => event!(warn),
    }
}

fn style() -> Style {
    output::style(&std::io::stderr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_the_variable_and_what_is_always_said() {
        use tracing::Level;
        let shows = |asked, target, level| filter(asked).0.would_enable(target, &level);
        for asked in [
            None,
            Some("debug"),
            Some("off"),
            Some("vfio=info"),
            Some("vmm=lots"),
        ] {
            assert!(shows(asked, "finding", Level::TRACE), "{asked:?}");
            assert!(shows(asked, "ending", Level::TRACE), "{asked:?}");
        }
        for asked in [None, Some("vmm=lots")] {
            assert!(shows(asked, "vmm::plan", Level::WARN), "{asked:?}");
            assert!(!shows(asked, "vmm::plan", Level::INFO), "{asked:?}");
        }
        assert!(!shows(Some("off"), "vmm::plan", Level::ERROR));
        let one_apart = Some("warn,vfio=debug");
        assert!(shows(one_apart, "vfio::sysfs", Level::DEBUG));
        assert!(!shows(one_apart, "vfio::sysfs", Level::TRACE));
        assert!(!shows(one_apart, "vmm", Level::INFO));
        assert_eq!(filter(one_apart).1, None);
        let complaint = filter(Some("vmm=lots")).1.unwrap();
        assert!(
            complaint.starts_with("CCVM_LOG is not understood, and taken for warn"),
            "{complaint}"
        );
    }
}
