//! Model definitions: a diffusers folder's configuration files become graphs.
