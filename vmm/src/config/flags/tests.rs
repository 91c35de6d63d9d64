use proptest::prelude::*;

use super::*;
use crate::config::spec::DmaMode;
use crate::diagnostic::{Code, Place};

fn flags() -> Flags {
    let mut flags = Flags::default();
    flags.key("--memory", ("vm", "memory"), Some("512MiB"));
    flags.key("--kernel", ("boot", "kernel"), Some("Image"));
    flags.key("--vcpus", ("vm", "vcpus"), Some("2"));
    flags.key("--initrd", ("boot", "initrd"), None::<&str>);
    flags.key("--cmdline", ("boot", "cmdline"), Some("quiet \"a\\b\""));
    flags
}

fn findings(flags: &Flags) -> Vec<(Code, Option<String>)> {
    let (source, parsed) = flags.parse();
    let shown = |span: Range<usize>| source.text().get(span).map(str::to_owned);
    let mut list = Vec::new();
    for finding in parsed.diagnostics {
        list.push((finding.code, finding.span.and_then(shown)));
    }
    list
}

#[test]
fn flags_are_the_file_that_says_the_same() {
    let mut flags = flags();
    flags.entries(
        "--device",
        ("device", "pci"),
        &["0000:01:00.0,dma-bits=40,dma=translated", "0000:02:00.0"],
    );
    let toml = flags.to_toml();
    assert_eq!(
        toml,
        "[vm]\nmemory = \"512MiB\"\nvcpus = 2\n\n\
         [boot]\nkernel = \"Image\"\ncmdline = 'quiet \"a\\b\"'\n\n\
         [[device]]\npci = \"0000:01:00.0\"\ndma-bits = 40\ndma = \"translated\"\n\n\
         [[device]]\npci = \"0000:02:00.0\"\n"
    );
    let (_, parsed) = flags.parse();
    assert_eq!(parsed.diagnostics, []);
    let file = parse(&Source::new("vm.toml", toml), Path::new(""));
    assert_eq!(parsed.spec, file.spec);
    let spec = parsed.spec.unwrap();
    assert_eq!((spec.vcpus, spec.memory), (2, 512 << 20));
    assert_eq!(spec.boot.unwrap().cmdline, "quiet \"a\\b\"");
    assert_eq!(spec.devices[0].dma_bits, Some(40));
    assert_eq!(spec.devices[0].dma, DmaMode::Translated);
}

#[test]
fn findings_point_at_the_flag() {
    let mut flags = Flags::default();
    flags.key("--memory", ("vm", "memory"), Some("512M"));
    flags.key("--vcpus", ("vm", "vcpus"), Some("two"));
    flags.key("--platform", ("vm", "platform"), Some("realm"));
    let devices = ["0000:01:00.0,dma-bit=40", "0000:02:00.0,dma=x", "1:2"];
    flags.entries("--device", ("device", "pci"), &devices);
    let expected = [
        (Code::InvalidValue, "512M"),
        (Code::InvalidValue, "two"),
        (Code::InvalidValue, "realm"),
        (Code::UnknownKey, "dma-bit"),
        (Code::InvalidValue, "x"),
        (Code::InvalidValue, "1:2"),
    ];
    let expected = expected.map(|(code, text)| (code, Some(text.to_owned())));
    assert_eq!(findings(&flags), expected);
}

#[test]
fn a_device_given_twice_shows_both() {
    let mut flags = flags();
    let twice = ["0000:01:00.0", "0000:01:00.0"];
    flags.entries("--device", ("device", "pci"), &twice);
    let (source, parsed) = flags.parse();
    let finding = &parsed.diagnostics[0];
    assert_eq!(finding.code, Code::DuplicateDevice);
    let line = |span: &Range<usize>| source.position(span.start).line;
    assert_eq!(finding.span.as_ref().map(line), Some(6));
    assert_eq!(line(&finding.related.as_ref().unwrap().span), 5);
}

#[test]
fn later_findings_have_a_place_where_a_flag_says_it_and_none_elsewhere() {
    let (source, parsed) = flags().parse();
    let shown = |place| {
        let span = parsed.locations.span(place);
        span.map(|span| source.text()[span].to_owned())
    };
    assert_eq!(shown(Place::Boot("kernel")).as_deref(), Some("Image"));
    assert_eq!(shown(Place::Vm("platform")), None, "a default");
}

#[test]
fn commas_and_line_ends_in_values_are_theirs() {
    assert_eq!(split("a,b,c=d,e,f-g=h"), ["a,b", "c=d,e", "f-g=h"]);
    assert_eq!(split(",=x"), [",=x"]);
    assert_eq!(split(""), [""]);
    let mut flags = Flags::default();
    flags.key("--memory", ("vm", "memory"), Some("1 GiB\n[boot]"));
    let (source, parsed) = flags.parse();
    assert_eq!(source.text().lines().count(), 1);
    assert_eq!(parsed.diagnostics.len(), 1);
}

#[test]
fn the_schema_tells_numbers_from_text() {
    let types = Types(Document::Config.schema().to_value());
    for (table, key, text, literal) in [
        ("vm", "vcpus", "2", "2"),
        ("vm", "vcpus", "two", "\"two\""),
        ("vm", "memory", "2", "\"2\""),
        ("device", "dma-bits", "40", "40"),
        ("device", "novel", "40", "40"),
        ("novel", "novel", "true", "\"true\""),
    ] {
        assert_eq!(types.literal(table, key, text), literal, "{table}.{key}");
    }
}

proptest! {
    /// Whatever a value holds, it stays the value of its key, and findings stay within the flags.
    #[test]
    fn no_value_gets_out_of_its_place(
        cmdline in "\\PC{0,24}|[\"'\\\\\n\r\t=\\[\\]#,]{0,12}",
        device in "[0-9a-z:.,=\"'\\\\\n\\[\\] -]{0,24}",
        memory in "\\PC{0,12}",
    ) {
        let mut flags = Flags::default();
        flags.key("--memory", ("vm", "memory"), Some(&memory));
        flags.key("--cmdline", ("boot", "cmdline"), Some(&cmdline));
        flags.entries("--device", ("device", "pci"), std::slice::from_ref(&device));
        let toml = flags.to_toml();
        // A key that is given twice is the operator's mistake, and the reader's to tell.
        if let Ok(table) = toml.parse::<toml::Table>() {
            prop_assert_eq!(table["vm"]["memory"].as_str(), Some(memory.as_str()));
            prop_assert_eq!(table["boot"]["cmdline"].as_str(), Some(cmdline.as_str()));
            prop_assert_eq!(table["device"].as_array().map(Vec::len), Some(1));
            prop_assert_eq!(table.len(), 3);
        } else {
            let keys = split(&device).into_iter().skip(1).filter_map(|part| part.split_once('='));
            let mut keys: Vec<&str> = keys.map(|(key, _)| key).chain(["pci"]).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            prop_assert!(keys.len() < all, "{}", toml);
        }
        let (source, parsed) = flags.parse();
        prop_assert_eq!(source.text().lines().count(), 3);
        for finding in parsed.diagnostics {
            if let Some(span) = finding.span {
                prop_assert!(source.text().get(span).is_some());
            }
        }
    }
}
