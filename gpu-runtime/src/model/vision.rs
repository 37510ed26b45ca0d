//! CLIP's image encoder as a graph: CLIPVisionModelWithProjection.

use super::configuration::VisionConfig;
use super::text::{Layer, layer};
use crate::graph::{AttentionPattern, Builder, LinearSpec, Precision, Shape, TensorId};

/// Patches `[tokens, 1, 1, 3 × patch × patch]`, of which the first is zero, to embeddings `[tokens, 1, 1, context channels]`,
/// of which the first is that of the picture.
///
/// Tokens are frames of one position each, so that tables and attention go along them. `marker` is 1 in the first
/// row and 0 elsewhere: its product with the class embedding stands where there is no patch.
pub(super) fn encoder(b: &mut Builder, config: &VisionConfig, names: [&str; 2]) -> TensorId {
    let tokens = config.tokens();
    let rows = |channels| Shape::new(tokens, 1, 1, channels);
    let patches = b.input(names[0], rows(config.patch_elements()), Precision::Model);
    let marker = b.input(names[1], rows(1), Precision::Model);
    let at = |name: &str| format!("vision_model.{name}");
    let class = at("embeddings.class_embedding");
    let class = b.linear_stored(&class, &class, marker, config.channels, None);
    let patch = at("embeddings.patch_embedding");
    let h = b.linear_stored(&patch, &format!("{patch}.weight"), patches, config.channels, Some(class));
    let positions = at("embeddings.position_embedding.weight");
    let h = b.add_frame_table(&at("embeddings"), &positions, tokens, h, tokens);
    // The name is spelt so in the files.
    let mut h = b.layer_norm(&at("pre_layrnorm"), h, config.eps);
    let spec = Layer {
        intermediate: config.intermediate,
        heads: config.heads,
        activation: config.activation,
        eps: config.eps,
        pattern: AttentionPattern::Temporal { frames: tokens },
    };
    for index in 0..config.layers {
        h = layer(b, &at(&format!("encoder.layers.{index}")), h, spec);
    }
    let h = b.layer_norm(&at("post_layernorm"), h, config.eps);
    let projection = LinearSpec { channels: config.projection, bias: false, residual: None };
    b.linear("visual_projection", h, projection)
}
