//! Kubernetes quantities as numbers.

/// The amount a quantity stands for, in its base unit (cores, bytes); `None` if it is none.
/// Source: the quantity grammar of the Kubernetes API (`<number><suffix>`, binary and decimal
/// suffixes, decimal exponents).
pub fn parse(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let scaled = number * scale(suffix)?;
    scaled.is_finite().then_some(scaled)
}

fn scale(suffix: &str) -> Option<f64> {
    let power = |base: f64, exponent: i32| Some(base.powi(exponent));
    match suffix {
        "" => Some(1.0),
        "n" => power(10.0, -9),
        "u" => power(10.0, -6),
        "m" => power(10.0, -3),
        "k" => power(10.0, 3),
        "M" => power(10.0, 6),
        "G" => power(10.0, 9),
        "T" => power(10.0, 12),
        "P" => power(10.0, 15),
        "E" => power(10.0, 18),
        "Ki" => power(1024.0, 1),
        "Mi" => power(1024.0, 2),
        "Gi" => power(1024.0, 3),
        "Ti" => power(1024.0, 4),
        "Pi" => power(1024.0, 5),
        "Ei" => power(1024.0, 6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            power(10.0, digits.parse().ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_every_suffix_and_refuses_the_rest() {
        for (text, amount) in [
            ("2", 2.0),
            ("1500m", 1.5),
            ("0.5", 0.5),
            ("20Gi", 20.0 * 1_073_741_824.0),
            ("1G", 1e9),
            ("12e3", 12_000.0),
            ("12E3", 12_000.0),
            ("1E", 1e18),
        ] {
            let parsed = parse(text).unwrap();
            assert!(
                (parsed - amount).abs() <= amount * 1e-12,
                "{text}: {parsed}"
            );
        }
        for text in ["", "m", "lots", "1 Gi", "1GB", "1e", "--1", "Gi"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
