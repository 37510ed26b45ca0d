//! Tensors of a plan: shapes, kinds and views of channel ranges. No memory.

use std::fmt;

/// Extents of a tensor, outermost first; `channels` are contiguous in memory.
///
/// Token sequences are `[n, 1, tokens, channels]`, vectors `[1, 1, 1, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Frames of all clips, or pictures of a batch.
    pub frames: u32,
    /// Rows of a picture.
    pub height: u32,
    /// Columns of a picture, or tokens.
    pub width: u32,
    /// Features of one position.
    pub channels: u32,
}

impl Shape {
    /// A shape.
    ///
    /// # Panics
    /// When an extent is zero.
    #[must_use]
    pub fn new(frames: u32, height: u32, width: u32, channels: u32) -> Self {
        let shape = Self { frames, height, width, channels };
        assert!(frames > 0 && height > 0 && width > 0 && channels > 0, "empty shape {shape}");
        shape
    }

    /// Positions of one frame: height × width.
    #[must_use]
    pub fn positions(self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }

    /// Rows of the tensor seen as a matrix with `channels` columns: frames × height × width.
    #[must_use]
    pub fn rows(self) -> u64 {
        u64::from(self.frames) * self.positions()
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(self) -> u64 {
        self.rows() * u64::from(self.channels)
    }

    /// The same positions with other features.
    #[must_use]
    pub fn with_channels(self, channels: u32) -> Self {
        Self::new(self.frames, self.height, self.width, channels)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.frames, self.height, self.width, self.channels)
    }
}

/// Index of a tensor in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// Who writes a tensor and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Lives between its writer and its last reader; its memory in the arena is used again.
    Scratch,
    /// Written from outside before a run; never by an operation.
    Input,
    /// Written by an operation and readable after the run.
    Output,
    /// Keeps its value between runs; written from outside or by an operation, also in place. Zero after loading.
    State,
}

/// How exactly the elements of a tensor are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The backend's own type: bf16 on CUDA, f32 on the CPU.
    Model,
    /// f32 on every backend: the sampler's state, scalars, token ids.
    Single,
}

/// One tensor of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extents.
    pub shape: Shape,
    /// Who writes it and how long it lives.
    pub kind: TensorKind,
    /// How exactly its elements are kept.
    pub precision: Precision,
    /// Unique name; outputs of blocks carry the dotted path of the diffusers module.
    pub name: String,
}

/// Channels `offset .. offset + channels` of every row of a tensor.
///
/// Row `r` starts at element `r * tensor.channels + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// The tensor.
    pub tensor: TensorId,
    /// First channel.
    pub offset: u32,
    /// Number of channels.
    pub channels: u32,
}
