//! The template of the addresses at which traces are shown.

use std::str::FromStr;

use url::Url;

/// What the id of the trace takes the place of.
const TRACE_ID: &str = "{trace_id}";

/// An address of http or https with `{trace_id}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceUrl(String);

impl TraceUrl {
    /// The address of a trace.
    pub fn of(&self, trace_id: &str) -> String {
        self.0.replace(TRACE_ID, trace_id)
    }
}

impl FromStr for TraceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(TRACE_ID) {
            return Err(format!("must have {TRACE_ID} in it, where the id of the trace belongs"));
        }
        let example = text.replace(TRACE_ID, &"0".repeat(32));
        let url = Url::parse(&example).map_err(|error| format!("must be an address: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("must be an address of http or https".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must have no user and no password: the console shows it".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_with_an_id_are_taken() {
        let good: TraceUrl = "https://jaeger.example/trace/{trace_id}?x=1".parse().unwrap();
        assert_eq!(good.of("4bf9"), "https://jaeger.example/trace/4bf9?x=1");
        for wrong in [
            "https://jaeger.example/trace",
            "javascript:alert('{trace_id}')",
            "ftp://jaeger.example/{trace_id}",
            "/trace/{trace_id}",
            "https://ada:secret@jaeger.example/{trace_id}",
            "",
        ] {
            assert!(wrong.parse::<TraceUrl>().is_err(), "{wrong}");
        }
    }
}
