//! Operations of the way back.

use super::Lowering;
use crate::graph::Gradient;

impl Lowering<'_> {
    pub(super) fn gradient(&mut self, _gradient: &Gradient) {
        unimplemented!("kernels of the way back")
    }
}
