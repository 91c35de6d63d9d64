//! How far the filling of guest memory is, as a bar on the terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

const TEMPLATE: &str = "filling memory {bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left";

/// A bar that is there from the first news on until all is done. What goes on in between is written
/// above it, if at all: the guest does not run yet.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `visible` on a terminal; elsewhere it never is.
    pub(crate) fn new(visible: bool) -> Self {
        Self::on(match visible {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        })
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE);
        let bar = ProgressBar::with_draw_target(Some(0), target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_finish(ProgressFinish::AndClear);
        Self { bar }
    }

    /// Shows that `done` bytes of `all` are filled.
    pub(crate) fn show(&mut self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        if done == all {
            self.bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    /// A bar, and the terminal that it is drawn on.
    fn drawn() -> (Progress, InMemoryTerm) {
        let terminal = InMemoryTerm::new(4, 100);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        (Progress::on(target), terminal)
    }

    #[test]
    fn the_bar_says_how_far_it_is_and_goes_when_it_is_done() {
        let (mut progress, terminal) = drawn();
        progress.show(0, 8 << 30);
        progress.show(4 << 30, 8 << 30);
        progress.bar.tick();
        let text = terminal.contents();
        assert!(text.starts_with("filling memory "), "{text}");
        assert!(text.contains("4.00 GiB of 8.00 GiB"), "{text}");
        progress.show(8 << 30, 8 << 30);
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn a_bar_that_is_given_up_leaves_nothing_behind() {
        let (mut progress, terminal) = drawn();
        progress.show(1 << 30, 8 << 30);
        progress.bar.tick();
        assert!(!terminal.contents().is_empty());
        drop(progress);
        assert_eq!(terminal.contents(), "");
    }
}
