//! Attributes of nodes, with ONNX's defaults.

use tract_onnx::pb;

use super::Window;

/// Extents beyond these are left to tract and its limits.
const MAX_EXTENT: i64 = 1 << 12;

pub(super) fn int(node: &pb::NodeProto, name: &str, default: i64) -> i64 {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    attribute.map_or(default, |attribute| attribute.i)
}

pub(super) fn float(node: &pb::NodeProto, name: &str, default: f32) -> f32 {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    attribute.map_or(default, |attribute| attribute.f)
}

pub(super) fn ints<'p>(node: &'p pb::NodeProto, name: &str) -> &'p [i64] {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    attribute.map_or(&[], |attribute| &attribute.ints)
}

/// The window of a convolution or pool; its kernel stands in the attributes or in the shape
/// of the weights. `None` for forms that this project does not write.
pub(super) fn window(node: &pb::NodeProto, of_weights: Option<[usize; 2]>) -> Option<Window> {
    let pair = |name: &str, default: [usize; 2]| -> Option<[usize; 2]> {
        match *ints(node, name) {
            [] => Some(default),
            [y, x] => Some([extent(y, 1)?, extent(x, 1)?]),
            _ => None,
        }
    };
    let kernel = pair("kernel_shape", of_weights.unwrap_or_default())?;
    if kernel.contains(&0) || of_weights.is_some_and(|shape| shape != kernel) {
        return None;
    }
    let has_name = |name: &str| node.attribute.iter().any(|a| a.name == name);
    let automatic = has_name("auto_pad")
        && node
            .attribute
            .iter()
            .any(|a| a.name == "auto_pad" && a.s != b"NOTSET");
    if automatic || int(node, "ceil_mode", 0) != 0 || pair("dilations", [1, 1])? != [1, 1] {
        return None;
    }
    let pads = match *ints(node, "pads") {
        [] => [0; 4],
        [top, left, bottom, right] => [
            extent(top, 0)?,
            extent(left, 0)?,
            extent(bottom, 0)?,
            extent(right, 0)?,
        ],
        _ => return None,
    };
    Some(Window {
        kernel,
        stride: pair("strides", [1, 1])?,
        pads,
    })
}

fn extent(value: i64, least: i64) -> Option<usize> {
    (least..=MAX_EXTENT)
        .contains(&value)
        .then_some(value as usize)
}
