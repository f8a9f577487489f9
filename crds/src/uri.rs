//! Where models and data live, parsed: `hf://`, `s3://`, `gs://`, `az://`, `pvc://`, `file://`.

use std::fmt;

/// A parsed location.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uri {
    /// `hf://ORG/NAME`
    Hub { repo: String },
    /// `s3://`, `gs://` and `az://`, whole.
    ObjectStore { url: String },
    /// `pvc://CLAIM/PATH`; the path is relative to the volume and may be empty.
    Claim { claim: String, path: String },
    /// `file:///PATH`, absolute, inside the container.
    File { path: String },
}

/// Why a location cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("`{0}` has no scheme; write hf://, s3://, pvc:// or file://")]
    NoScheme(String),
    #[error("`{0}`: unknown scheme; use hf://, s3://, gs://, az://, pvc:// or file://")]
    UnknownScheme(String),
    #[error("`{0}`: a path may not contain `..`; name the folder directly")]
    ParentFolder(String),
    #[error("`{0}`: write hf://ORG/NAME")]
    Hub(String),
    #[error("`{0}`: write pvc://CLAIM/PATH with the claim's name in lower case")]
    Claim(String),
    #[error("`{0}`: write file:///PATH, with an absolute path")]
    File(String),
}

impl Uri {
    /// Parses a location; `..` is refused anywhere.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UriError::NoScheme(text.to_owned()))?;
        if rest.split('/').any(|part| part == "..") {
            return Err(UriError::ParentFolder(text.to_owned()));
        }
        match scheme {
            "hf" => parse_hub(text, rest),
            "s3" | "gs" | "az" => Ok(Self::ObjectStore {
                url: text.to_owned(),
            }),
            "pvc" => parse_claim(text, rest),
            "file" => parse_file(text, rest),
            _ => Err(UriError::UnknownScheme(text.to_owned())),
        }
    }

    /// The claim this location needs mounted, if any.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Claim { claim, .. } => Some(claim),
            _ => None,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo } => write!(f, "hf://{repo}"),
            Self::ObjectStore { url } => f.write_str(url),
            Self::Claim { claim, path } => write!(f, "pvc://{claim}/{path}"),
            Self::File { path } => write!(f, "file://{path}"),
        }
    }
}

fn parse_hub(text: &str, rest: &str) -> Result<Uri, UriError> {
    let repo = rest.trim_end_matches('/');
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.is_empty() || parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err(UriError::Hub(text.to_owned()));
    }
    Ok(Uri::Hub {
        repo: repo.to_owned(),
    })
}

fn parse_claim(text: &str, rest: &str) -> Result<Uri, UriError> {
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if claim.is_empty() || claim.len() > 253 || !claim.chars().all(valid) {
        return Err(UriError::Claim(text.to_owned()));
    }
    Ok(Uri::Claim {
        claim: claim.to_owned(),
        path: path.trim_matches('/').to_owned(),
    })
}

fn parse_file(text: &str, rest: &str) -> Result<Uri, UriError> {
    if !rest.starts_with('/') {
        return Err(UriError::File(text.to_owned()));
    }
    Ok(Uri::File {
        path: rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_scheme() {
        for text in [
            "hf://Qwen/Qwen2-VL-7B-Instruct",
            "s3://bucket/prefix",
            "pvc://claim/a/b",
            "file:///data/model",
        ] {
            assert_eq!(Uri::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Uri::parse("pvc://claim").unwrap().claim(), Some("claim"));
    }

    #[test]
    fn refuses_what_leaves_the_volume_or_has_no_meaning() {
        for (text, part) in [
            ("pvc://claim/a/../../b", ".."),
            ("pvc:///path", "pvc://CLAIM/PATH"),
            ("pvc://Claim/a", "lower case"),
            ("file://relative", "absolute"),
            ("hf://a/b/c", "hf://ORG/NAME"),
            ("ftp://a", "unknown scheme"),
            ("/plain/path", "no scheme"),
        ] {
            let message = Uri::parse(text).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains(text),
                "{message}"
            );
        }
    }
}
