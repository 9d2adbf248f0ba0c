//! What a camera makes of a scene: light, blur, noise, compression.

use eyas_shared::random::Random;
use jpeg_encoder::{ColorType, Encoder, EncodingError};

use super::canvas::{Canvas, Color, mix};
use super::view::Setting;

/// Photographs a picture: its JPEG file.
pub(super) fn develop(
    mut picture: Canvas,
    setting: Setting,
    random: &Random,
) -> Result<Vec<u8>, EncodingError> {
    let mut random = random.fork("photo");
    let is_shelf = setting == Setting::Shelf;
    light(&mut picture, is_shelf, &mut random);
    // Sizes of blur are for a picture of 128 pixels.
    let unit = picture.width as f32 / 128.0;
    let sharpest = 0.4;
    let sigma = if is_shelf {
        within(&mut random, sharpest, 1.1)
    } else {
        0.45
    };
    let motion = if is_shelf && random.chance(0.2) {
        1.2
    } else {
        0.0
    };
    blur(&mut picture, [(sigma + motion) * unit, sigma * unit]);
    let noise = within(&mut random, 0.004, if is_shelf { 0.03 } else { 0.008 });
    let quality = if is_shelf { 50 + random.below(36) } else { 92 };
    let samples: Vec<u8> = picture
        .pixels
        .iter()
        .flatten()
        .map(|sample| {
            let noisy = sample + noise * random.normal() as f32;
            (noisy.clamp(0.0, 1.0) * 255.0).round() as u8
        })
        .collect();
    let mut file = Vec::new();
    let [width, height] = [picture.width, picture.height].map(|n| n as u16);
    Encoder::new(&mut file, quality as u8).encode(&samples, width, height, ColorType::Rgb)?;
    Ok(file)
}

/// Uniform in `low..high`.
pub(super) fn within(random: &mut Random, low: f32, high: f32) -> f32 {
    random.range(f64::from(low), f64::from(high)) as f32
}

/// Brightness, color of the lamps, a gradient across the picture and a reflection.
fn light(picture: &mut Canvas, is_shelf: bool, random: &mut Random) {
    let wild = if is_shelf { 1.0 } else { 0.3 };
    let gain = 1.0 + wild * within(random, -0.25, 0.2);
    let warmth = wild * within(random, -0.1, 0.1);
    let green = wild * within(random, -0.05, 0.05);
    let cast: Color = [
        gain * (1.0 + warmth),
        gain * (1.0 + green),
        gain * (1.0 - warmth),
    ];
    let contrast = 1.0 + wild * within(random, -0.2, 0.1);
    let angle = within(random, 0.0, std::f32::consts::TAU);
    let slope = wild * within(random, 0.0, 0.35);
    let (sin, cos) = angle.sin_cos();
    let glare = if is_shelf && random.chance(0.3) {
        within(random, 0.15, 0.5)
    } else {
        0.0
    };
    let spot = [within(random, 0.2, 0.8), within(random, 0.1, 0.7)];
    let reach = [within(random, 0.06, 0.2), within(random, 0.1, 0.35)];
    for y in 0..picture.height {
        for x in 0..picture.width {
            let at = [
                x as f32 / picture.width as f32,
                y as f32 / picture.height as f32,
            ];
            let shade = 1.0 + slope * ((at[0] - 0.5) * cos + (at[1] - 0.5) * sin) * 2.0;
            let off = [0, 1].map(|axis| ((at[axis] - spot[axis]) / reach[axis]).powi(2));
            let shine = glare * (-(off[0] + off[1])).exp();
            let pixel = &mut picture.pixels[y * picture.width + x];
            let lit = std::array::from_fn(|i| {
                ((pixel[i] - 0.45) * contrast + 0.45).max(0.0) * cast[i] * shade
            });
            *pixel = mix(lit, [1.0; 3], shine);
        }
    }
}

/// Blurs with a Gaussian of these standard deviations in pixels, first along rows.
fn blur(picture: &mut Canvas, sigma: [f32; 2]) {
    let (width, height) = (picture.width, picture.height);
    for (axis, sigma) in sigma.into_iter().enumerate() {
        let reach = (3.0 * sigma).ceil() as usize;
        let weights: Vec<f32> = (0..=2 * reach)
            .map(|i| (-0.5 * ((i as f32 - reach as f32) / sigma).powi(2)).exp())
            .collect();
        let total: f32 = weights.iter().sum();
        let source = picture.pixels.clone();
        for y in 0..height {
            for x in 0..width {
                let mut sum = [0.0; 3];
                for (i, weight) in weights.iter().enumerate() {
                    let moved = |at: usize, n: usize| (at + i).saturating_sub(reach).min(n - 1);
                    let from = if axis == 0 {
                        y * width + moved(x, width)
                    } else {
                        moved(y, height) * width + x
                    };
                    for (sum, sample) in sum.iter_mut().zip(source[from]) {
                        *sum += weight / total * sample;
                    }
                }
                picture.pixels[y * width + x] = sum;
            }
        }
    }
}
