//! OpenAI embeddings, of eight dimensions.
use std::fmt::Write;

use super::Made;

const DIMENSIONS: usize = 8;

pub(super) fn document(made: &Made) -> String {
    let (model, input) = (&made.model, made.billed.input);
    let mut text = String::from(r#"{"object":"list","data":["#);
    for index in 0..made.inputs {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(
            text,
            r#"{comma}{{"object":"embedding","index":{index},"embedding":"#
        );
        write_vector(&mut text, made.digest.wrapping_add(index), made.base64);
        text.push('}');
    }
    let _ = write!(
        text,
        r#"],"model":{model},"usage":{{"prompt_tokens":{input},"total_tokens":{input}}}}}"#
    );
    text
}

fn write_vector(text: &mut String, seed: u64, base64: bool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let vector: [f32; DIMENSIONS] =
        std::array::from_fn(|_| (rng.f32() * 2000.0).round() / 1000.0 - 1.0);
    if base64 {
        let bytes: Vec<u8> = vector
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let _ = write!(text, "\"{}\"", to_base64(&bytes));
    } else {
        text.push('[');
        for (i, value) in vector.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(text, "{comma}{value}");
        }
        text.push(']');
    }
}

fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            if place <= three.len() {
                let digit = bits >> (18 - 6 * place) & 63;
                text.push(char::from(DIGITS[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        assert_eq!(to_base64(b"M"), "TQ==");
        assert_eq!(to_base64(b"Ma"), "TWE=");
        assert_eq!(to_base64(b"Many"), "TWFueQ==");
    }
}
