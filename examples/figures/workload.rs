//! Draws a job by its seed.
use std::io::{self, Write};

use fastrand::Rng;

/// What the rows ask.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Prompts of lognormal length, one of five output caps.
    Chat,
    /// Short inputs.
    Embeddings,
}

const CAPS: [u32; 5] = [64, 128, 256, 512, 1_024];
const WORDS: [&str; 8] = [
    "river", "lamp", "seven", "cloud", "paper", "north", "ferry", "plain",
];

impl Shape {
    /// Writes so many rows.
    pub(crate) fn write(self, rows: usize, seed: u64, to: &mut impl Write) -> io::Result<()> {
        let mut rng = Rng::with_seed(seed);
        for id in 0..rows {
            match self {
                Self::Chat => {
                    let tokens = (120.0 * (0.5 * normal(&mut rng)).exp()).clamp(1.0, 4_000.0);
                    let text = text(&mut rng, tokens);
                    let cap = CAPS[rng.usize(..CAPS.len())];
                    writeln!(
                        to,
                        "{{\"metadata\":{{\"id\":{id}}},\"model\":\"gpt-4o-mini\",\"max_tokens\":{cap},\
                         \"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
                    )?;
                }
                Self::Embeddings => {
                    let tokens = 5.0 + 20.0 * rng.f64();
                    let text = text(&mut rng, tokens);
                    writeln!(
                        to,
                        "{{\"metadata\":{{\"id\":{id}}},\"model\":\"text-embedding-3-small\",\"input\":\"{text}\"}}"
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// So many tokens of four characters, the last one whole.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn text(rng: &mut Rng, tokens: f64) -> String {
    let length = tokens as usize * 4;
    let mut text = String::with_capacity(length + 8);
    while text.len() < length {
        text.push_str(WORDS[rng.usize(..WORDS.len())]);
        text.push(' ');
    }
    text.truncate(length);
    text
}

/// Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}
