use serde_json::value::RawValue;

/// True for a value that client libraries write for unset: `null`, `""`, `0`, `false`, `[]`, `{}`. It equals absent.
#[must_use]
pub fn is_unset(value: &RawValue) -> bool {
    let json = value.get();
    match json.as_bytes()[0] {
        b'n' | b'f' => true,
        b'"' | b'0' => json.len() == if json.starts_with('0') { 1 } else { 2 },
        b'[' | b'{' => json[1..json.len() - 1].trim_ascii().is_empty(),
        _ => false,
    }
}
