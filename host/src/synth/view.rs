//! A product where it is photographed: alone before a plain wall, or on a shelf among
//! others, seen by a tilted camera and partly hidden.
//!
//! The scene is flat: packages stand side by side in a plane with x to the right and y
//! down, about one unit wide. A projective map takes the picture into that plane, so every
//! pixel is computed on its own.

use eyas_shared::random::Random;

use super::canvas::{Canvas, Color, Point, hsv, mix, scale};
use super::product::Product;

/// Samples per pixel along each axis.
const SUPERSAMPLING: usize = 2;

/// Where packages stand, and the front edge of the board below them.
const FLOOR: f32 = 0.86;
const RAIL_TOP: f32 = 0.875;
const RAIL_BOTTOM: f32 = 0.965;

/// How much a view is disturbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    /// As for a planogram: alone, straight, evenly lit.
    Studio,
    /// As in a shop: among neighbours, askew, partly hidden.
    Shelf,
}

struct Item<'a> {
    product: &'a Product,
    center: f32,
    bottom: f32,
    height: f32,
    yaw: f32,
    brightness: f32,
}

/// Something in front of everything: a hand or a price tag.
enum Occluder {
    Hand {
        tips: [Point; 3],
        root: Point,
        skin: Color,
    },
    Tag {
        center: Point,
        half: Point,
        bars: [f32; 8],
        color: Color,
    },
}

struct Scene<'a> {
    setting: Setting,
    /// Rows of the projective map from the picture (centered, 1 wide) to the scene.
    camera: [[f32; 3]; 3],
    wall: Color,
    board: Color,
    rail: Color,
    /// Later ones stand in front.
    items: Vec<Item<'a>>,
    occluders: Vec<Occluder>,
}

/// Renders `side` x `side` pixels of a product, `fillers` being what may stand around it.
pub(super) fn render(
    product: &Product,
    fillers: &[Product],
    setting: Setting,
    side: usize,
    random: &Random,
) -> Canvas {
    let scene = Scene::random(product, fillers, setting, &mut random.fork("scene"));
    let mut picture = Canvas::new(side, side, [0.0; 3]);
    let n_fine = side * SUPERSAMPLING;
    let share = 1.0 / (SUPERSAMPLING * SUPERSAMPLING) as f32;
    for y in 0..n_fine {
        for x in 0..n_fine {
            let at = [x, y].map(|i| (i as f32 + 0.5) / n_fine as f32 - 0.5);
            let color = scene.color(at);
            let pixel = &mut picture.pixels[y / SUPERSAMPLING * side + x / SUPERSAMPLING];
            for (sum, sample) in pixel.iter_mut().zip(color) {
                *sum += share * sample;
            }
        }
    }
    picture
}

fn within(random: &mut Random, low: f32, high: f32) -> f32 {
    random.range(f64::from(low), f64::from(high)) as f32
}

impl<'a> Scene<'a> {
    fn random(
        product: &'a Product,
        fillers: &'a [Product],
        setting: Setting,
        random: &mut Random,
    ) -> Self {
        let is_shelf = setting == Setting::Shelf;
        let height = 0.78_f32.min(0.66 / product.aspect());
        let yaw = if is_shelf { 0.5 } else { 0.35 };
        let target = Item {
            product,
            center: 0.0,
            bottom: FLOOR,
            height,
            yaw: within(random, -yaw, yaw),
            brightness: 1.0,
        };
        let middle = [0.0, FLOOR - height / 2.0];
        let gray = within(random, 0.62, 0.95);
        let mut scene = Self {
            setting,
            camera: camera(setting, middle, random),
            wall: mix([gray; 3], hsv(random.unit() as f32, 0.4, gray), 0.25),
            board: [within(random, 0.6, 0.85); 3],
            rail: if random.chance(0.5) {
                [within(random, 0.75, 0.95); 3]
            } else {
                hsv(random.unit() as f32, within(random, 0.2, 0.8), 0.6)
            },
            items: Vec::new(),
            occluders: Vec::new(),
        };
        if is_shelf {
            scene.add_neighbors(&target, fillers, random);
        }
        let half = height * product.aspect() / 2.0;
        scene.items.push(target);
        if is_shelf {
            scene.add_front(half, fillers, random);
            scene.add_tags(random);
            if random.chance(0.15) {
                scene.occluders.push(hand(half, random));
            }
        }
        scene
    }

    /// Fills the shelf to both sides: some more of the same product, mostly others.
    fn add_neighbors(&mut self, target: &Item<'a>, fillers: &'a [Product], random: &mut Random) {
        for side in [-1.0, 1.0] {
            let mut edge = target.height * target.product.aspect() / 2.0;
            let mut facings = random.below(8) / 6;
            while edge < 1.0 {
                let product = if facings > 0 {
                    target.product
                } else {
                    &fillers[random.below(fillers.len())]
                };
                let height = if facings > 0 {
                    target.height
                } else {
                    within(random, 0.5, 0.8).min(0.65 / product.aspect())
                };
                facings = facings.saturating_sub(1);
                let half = height * product.aspect() / 2.0;
                edge += within(random, 0.005, 0.05);
                if random.chance(0.9) {
                    self.items.push(Item {
                        product,
                        center: side * (edge + half),
                        bottom: FLOOR - within(random, 0.0, 0.012),
                        height,
                        yaw: within(random, -0.5, 0.5),
                        brightness: within(random, 0.8, 1.0),
                    });
                }
                edge += 2.0 * half;
            }
        }
    }

    /// Sometimes a neighbour stands before the product and hides an edge of it.
    fn add_front(&mut self, half: f32, fillers: &'a [Product], random: &mut Random) {
        if !random.chance(0.25) {
            return;
        }
        let product = &fillers[random.below(fillers.len())];
        let height = within(random, 0.35, 0.75).min(0.6 / product.aspect());
        let own = height * product.aspect() / 2.0;
        let hidden = within(random, 0.1, 0.28) * 2.0 * half;
        let side = if random.chance(0.5) { 1.0 } else { -1.0 };
        self.items.push(Item {
            product,
            center: side * (half + own - hidden),
            bottom: FLOOR + 0.012,
            height,
            yaw: within(random, -0.4, 0.4),
            brightness: 1.0,
        });
    }

    /// Price tags on the rail; now and then one sticks up before the product.
    fn add_tags(&mut self, random: &mut Random) {
        let color = if random.chance(0.6) {
            [0.97, 0.97, 0.94]
        } else {
            hsv(within(random, 0.0, 0.17), 0.8, 0.95)
        };
        let mut tag = |center: Point, half: Point, random: &mut Random| {
            self.occluders.push(Occluder::Tag {
                center,
                half,
                bars: std::array::from_fn(|_| random.unit() as f32),
                color,
            });
        };
        let mut x = within(random, -1.0, -0.7);
        while x < 1.0 {
            tag([x, 0.92], [0.085, 0.036], random);
            x += within(random, 0.3, 0.6);
        }
        if random.chance(0.2) {
            let center = [within(random, -0.2, 0.2), within(random, 0.74, 0.82)];
            tag(center, [0.1, 0.06], random);
        }
    }

    /// What the camera sees at a place of the picture.
    fn color(&self, at: Point) -> Color {
        let row = |row: [f32; 3]| row[0] * at[0] + row[1] * at[1] + row[2];
        let depth = row(self.camera[2]);
        let point = [row(self.camera[0]) / depth, row(self.camera[1]) / depth];
        if let Some(color) = self.occluders.iter().rev().find_map(|it| it.color(point)) {
            return color;
        }
        for item in self.items.iter().rev() {
            if let Some(color) = item.color(point) {
                return color;
            }
        }
        self.background(point)
    }

    fn background(&self, [x, y]: Point) -> Color {
        // Packages darken what is close behind and below them, most on a crowded shelf.
        let strength = match self.setting {
            Setting::Studio if y < FLOOR - 0.03 => 0.05,
            Setting::Studio => 0.25,
            Setting::Shelf => 0.4,
        };
        let shadow = self
            .items
            .iter()
            .map(|item| 1.0 - strength * item.shadow([x, y]))
            .fold(1.0, f32::min);
        if self.setting == Setting::Studio {
            let ground = if y > FLOOR - 0.03 { 0.93 } else { 1.0 };
            return scale(mix(self.wall, [1.0; 3], 0.5), ground * shadow);
        }
        if y > RAIL_BOTTOM {
            // The next shelf's dark opening.
            let depth = ((y - RAIL_BOTTOM) / 0.12).min(1.0);
            return scale(self.wall, 0.16 + 0.3 * depth);
        }
        if y > RAIL_TOP {
            let round = 1.0 - 0.25 * ((y - RAIL_TOP) / (RAIL_BOTTOM - RAIL_TOP) * 2.0 - 1.0).abs();
            return scale(self.rail, round);
        }
        if y > FLOOR - 0.03 {
            return scale(self.board, 0.9 * shadow);
        }
        scale(self.wall, (0.34 + 0.5 * y.clamp(0.0, 1.0)) * shadow)
    }
}

impl Item<'_> {
    fn color(&self, [x, y]: Point) -> Option<Color> {
        let half = self.height * self.product.aspect() / 2.0;
        let s = (x - self.center) / half;
        let t = 1.0 - (self.bottom - y) / self.height;
        let color = self.product.color(s, t, self.yaw)?;
        let foot = 1.0 - 0.18 * ((t - 0.88) / 0.12).max(0.0);
        Some(scale(color, self.brightness * foot))
    }

    /// How much the package shades its surroundings, from 1 at its outline to 0.
    fn shadow(&self, [x, y]: Point) -> f32 {
        let half = self.height * self.product.aspect() / 2.0;
        let beside = ((x - self.center).abs() - half).max(0.0);
        let above = (self.bottom - self.height - y).max(0.0);
        (-beside.hypot(above) / 0.05).exp()
    }
}

impl Occluder {
    fn color(&self, point: Point) -> Option<Color> {
        match self {
            Self::Tag {
                center,
                half,
                bars,
                color,
            } => {
                let [u, v] = [0, 1].map(|axis| (point[axis] - center[axis]) / half[axis]);
                if u.abs() > 1.0 || v.abs() > 1.0 {
                    return None;
                }
                // A price at the left, a bar code at the right.
                let bar = bars[((u + 1.0) * 3.99) as usize];
                let is_dark = if u < 0.1 {
                    (u > -0.85 && v.abs() < 0.55) && (bar + 3.0 * v * bar).sin().abs() > 0.45
                } else {
                    u < 0.85 && v.abs() < 0.5 && (u * 40.0 + 9.0 * bar).sin() > 0.2
                };
                Some(if is_dark { [0.15; 3] } else { *color })
            }
            Self::Hand { tips, root, skin } => tips.iter().find_map(|tip| {
                let along = [root[0] - tip[0], root[1] - tip[1]];
                let offset = [point[0] - tip[0], point[1] - tip[1]];
                let length2 = along[0] * along[0] + along[1] * along[1];
                let share = (offset[0] * along[0] + offset[1] * along[1]) / length2;
                let share = share.clamp(0.0, 1.0);
                let off = (offset[0] - share * along[0]).hypot(offset[1] - share * along[1]);
                let radius = 0.035 + 0.06 * share;
                (off < radius).then(|| scale(*skin, 1.05 - 0.4 * (off / radius).powi(2)))
            }),
        }
    }
}

/// Three fingers that come in from one side and end on the product.
fn hand(half: f32, random: &mut Random) -> Occluder {
    let side = if random.chance(0.5) { 1.0 } else { -1.0 };
    let y = within(random, 0.35, 0.7);
    let reach = within(random, 0.35, 0.85) * half;
    let tips = std::array::from_fn(|finger| {
        let x = side * (reach + within(random, 0.0, 0.05));
        [x, y + 0.075 * (finger as f32 - 1.0)]
    });
    Occluder::Hand {
        tips,
        root: [side * (half + 0.6), y + within(random, 0.05, 0.35)],
        skin: hsv(
            within(random, 0.03, 0.08),
            within(random, 0.35, 0.6),
            within(random, 0.35, 0.88),
        ),
    }
}

/// The map from the picture to the scene around `middle`.
fn camera(setting: Setting, middle: Point, random: &mut Random) -> [[f32; 3]; 3] {
    let wild = if setting == Setting::Shelf { 1.0 } else { 0.4 };
    let mut within = |reach: f32| within(random, -reach * wild, reach * wild);
    let angle = within(0.17);
    let zoom = 0.92 * (1.0 + within(0.16));
    let shear = within(0.12);
    let shift = [within(0.07), within(0.06)];
    let tilt = [within(0.45), within(0.35)];
    let (sin, cos) = angle.sin_cos();
    let along = [[zoom * cos, zoom * (shear - sin)], [zoom * sin, zoom * cos]];
    // Divided by depth, the picture's center stays where it is aimed.
    let aim = [middle[0] + shift[0], middle[1] + shift[1]];
    let row = |axis: usize| {
        [
            along[axis][0] + aim[axis] * tilt[0],
            along[axis][1] + aim[axis] * tilt[1],
            aim[axis],
        ]
    };
    [row(0), row(1), [tilt[0], tilt[1], 1.0]]
}
