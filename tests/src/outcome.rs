//! How a test ends.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A reason not to run, as an error that a case returns.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// A reason why what a test is about cannot be there at all, as an error that a case returns: nothing is
/// missing that would let it run.
#[derive(Debug)]
pub struct Cannot(pub &'static str);

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Cannot {}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// With this complaint.
    Failed(String),
    /// It did not run, for this reason.
    Skipped(String),
    /// There is nothing to run, for this reason, which is as it should be.
    Cannot(String),
}

/// A test's result.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// The test's name.
    pub name: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
    /// What it complained of when it first ran, if this is its second run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

impl Result {
    /// This as the result of a second run.
    #[must_use]
    pub fn after(mut self, first: Self) -> Self {
        if let Outcome::Failed(why) = first.outcome {
            self.first = Some(why);
        }
        self
    }
}

fn seconds<S: serde::Serializer>(
    took: &Duration,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 10.0).round() / 10.0)
}

impl Outcome {
    /// What an error of a test means.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if let Some(Skip(reason)) = error.downcast_ref() {
            Self::Skipped(reason.clone())
        } else if let Some(Cannot(reason)) = error.downcast_ref() {
            Self::Cannot((*reason).to_owned())
        } else {
            Self::Failed(format!("{error:#}"))
        }
    }
}
