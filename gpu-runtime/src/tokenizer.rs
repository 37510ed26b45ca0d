//! The byte-pair encoder of CLIP text models.
