//! Shapes and text as SVG, and the one style sheet for light and dark viewers.

use std::fmt::Write as _;

const STYLE: &str = "\
    text{font:12px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1f2328}\
    .title{font-size:15px;font-weight:600}\
    .good{font-size:15px;font-weight:700;fill:#1a7f37}\
    .bad{font-size:15px;font-weight:700;fill:#cf222e}\
    .head{font-weight:600}\
    .quiet{fill:#59636e}\
    .page{fill:#ffffff}\
    .memory{fill:#b6e3ff;stroke:#0969da}\
    .alias{fill:#aff5c4;stroke:#1a7f37}\
    .mmio{fill:#eae0ff;stroke:#8250df}\
    .pci{fill:#ffe7c7;stroke:#bc4c00}\
    .reserved{fill:#eff2f5;stroke:#818b98}\
    .gap{fill:none;stroke:#d1d9e0;stroke-dasharray:2 3}\
    .track{fill:#eff2f5}\
    .enough{fill:#4ac26b}\
    .short{fill:#ff8182}\
    .mark{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:5 3;fill:none}\
    .reach{stroke:#1a7f37;stroke-width:1.5;fill:none}\
    .tie{stroke:#afb8c1;stroke-dasharray:1 3;fill:none}\
    @media(prefers-color-scheme:dark){\
    text{fill:#e6edf3}\
    .good{fill:#3fb950}.bad{fill:#f85149}.quiet{fill:#9198a1}\
    .page{fill:#0d1117}\
    .memory{fill:#0c2d6b;stroke:#4493f8}\
    .alias{fill:#04260f;stroke:#3fb950}\
    .mmio{fill:#271052;stroke:#ab7df8}\
    .pci{fill:#3d1300;stroke:#f0883e}\
    .reserved{fill:#212830;stroke:#656c76}\
    .gap{stroke:#3d444d}\
    .track{fill:#212830}.enough{fill:#238636}.short{fill:#b62324}\
    .mark{stroke:#f85149}.reach{stroke:#3fb950}.tie{stroke:#3d444d}}";

/// How a shape or text looks; the style sheet says it for both kinds of viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Title,
    Good,
    Bad,
    Head,
    Normal,
    Quiet,
    Memory,
    Alias,
    Mmio,
    Pci,
    Reserved,
    Gap,
    Track,
    Enough,
    Short,
    Mark,
    Reach,
    Tie,
}

impl Class {
    const fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Head => "head",
            Self::Normal => "normal",
            Self::Quiet => "quiet",
            Self::Memory => "memory",
            Self::Alias => "alias",
            Self::Mmio => "mmio",
            Self::Pci => "pci",
            Self::Reserved => "reserved",
            Self::Gap => "gap",
            Self::Track => "track",
            Self::Enough => "enough",
            Self::Short => "short",
            Self::Mark => "mark",
            Self::Reach => "reach",
            Self::Tie => "tie",
        }
    }
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// A picture under construction; y grows downwards.
pub(super) struct Canvas {
    width: u32,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: u32) -> Self {
        Self {
            width,
            body: String::new(),
        }
    }

    /// The document, `height` pixels high.
    pub(super) fn finish(self, height: u32) -> String {
        let Self { width, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\">\n\
             <style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n\
             {body}</svg>\n"
        )
    }

    pub(super) fn rect(&mut self, class: Class, rect: Rect) {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        self.element(format_args!(
            "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>",
            class.name()
        ));
    }

    pub(super) fn line(&mut self, class: Class, from: (u32, u32), to: (u32, u32)) {
        self.element(format_args!(
            "<path class=\"{}\" d=\"M{} {}L{} {}\"/>",
            class.name(),
            from.0,
            from.1,
            to.0,
            to.1
        ));
    }

    /// Text that starts at `x`, on the base line `y`.
    pub(super) fn text(&mut self, x: u32, y: u32, class: Class, text: &str) {
        self.anchored(x, y, class, "start", text);
    }

    /// Text that ends at `x`, on the base line `y`.
    pub(super) fn text_to(&mut self, x: u32, y: u32, class: Class, text: &str) {
        self.anchored(x, y, class, "end", text);
    }

    fn anchored(&mut self, x: u32, y: u32, class: Class, anchor: &str, text: &str) {
        self.element(format_args!(
            "<text class=\"{}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            class.name(),
            escaped(text)
        ));
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
