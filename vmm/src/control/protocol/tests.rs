use super::*;

fn refusal(line: &str) -> (ErrorCode, String) {
    let failure = Command::parse(line.as_bytes()).unwrap_err();
    (failure.code, failure.message)
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let map = Command::Map {
        device: Some("00:01.0".to_owned()),
        from: Some(Hex(0x4000_0000)),
        limit: None,
    };
    let tdi = Command::Tdi {
        action: TdiAction::Lock,
        device: "0000:00:04.0".to_owned(),
    };
    for command in [Command::Status {}, map, tdi, Command::Stop {}] {
        let line = serde_json::to_vec(&Request::new(command.clone())).unwrap();
        assert_eq!(Command::parse(&line), Ok(command));
    }
}

#[test]
fn the_first_thing_that_is_wrong_is_told() {
    use ErrorCode::{InvalidArgument, Malformed, UnknownCommand, UnsupportedVersion};
    for (line, code, part) in [
        ("", Malformed, "one JSON object"),
        ("[1]", Malformed, "one JSON object"),
        ("{\"version\":1} {}", Malformed, "one JSON object"),
        ("{}", UnsupportedVersion, "has none"),
        (
            r#"{"version":2,"command":"x"}"#,
            UnsupportedVersion,
            "has 2",
        ),
        (
            r#"{"version":"1","command":"status"}"#,
            UnsupportedVersion,
            "has \"1\"",
        ),
        (r#"{"version":1}"#, UnknownCommand, "status, "),
        (
            r#"{"version":1,"command":"start"}"#,
            UnknownCommand,
            "status, ",
        ),
        (r#"{"version":1,"command":7}"#, UnknownCommand, "status, "),
        (
            r#"{"version":1,"command":"status","all":true}"#,
            InvalidArgument,
            "all",
        ),
    ] {
        let (is, message) = refusal(line);
        assert_eq!(is, code, "{line}: {message}");
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[test]
fn every_command_is_in_the_list_of_names() {
    let schema = serde_json::to_value(schemars::schema_for!(Command)).unwrap();
    let variants = schema["oneOf"].as_array().unwrap().iter();
    let names: Vec<&str> = variants
        .map(|variant| variant["properties"]["command"]["const"].as_str().unwrap())
        .collect();
    assert_eq!(names, Command::NAMES);
}

#[test]
fn an_answer_goes_under_the_name_of_its_command() {
    let line = |answer| serde_json::to_string(&Response::new(answer)).unwrap();
    assert_eq!(line(Answer::Stop(Done {})), r#"{"version":1,"stop":{}}"#);
    let failure = Failure::new(ErrorCode::UnknownCommand, "no");
    assert_eq!(
        line(Answer::Error(failure)),
        r#"{"version":1,"error":{"code":"unknown-command","message":"no"}}"#
    );
}
