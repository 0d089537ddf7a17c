//! stub
#[derive(Clone, Debug)]
pub(super) struct Status {}
