//! Relative links of the documentation: what they point at must be there.

use std::path::Path;

/// The links of one page that lead nowhere, `path:line: link`.
pub(crate) fn broken(root: &Path, name: &str, text: &str) -> Vec<String> {
    let page = root.join(name);
    let folder = page.parent().unwrap_or(root);
    let mut broken = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let links = targets(line).filter(|_| !in_code);
        for link in links.filter(|link| !folder.join(link).exists()) {
            broken.push(format!("{name}:{number}: nothing at '{link}'"));
        }
    }
    broken
}

/// The files that a line links to: `](path#part)`, without addresses of the web and of this page.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .filter_map(|link| link.split('#').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[a](src/links.rs) [b](src/absent.rs#part) [c](https://example.com) [d](#here)\n\
                    ```\n[e](absent.md)\n```\n![f](absent.svg \"title\")\n";
        assert_eq!(
            broken(root, "PAGE.md", text),
            [
                "PAGE.md:1: nothing at 'src/absent.rs'",
                "PAGE.md:5: nothing at 'absent.svg'"
            ]
        );
    }
}
