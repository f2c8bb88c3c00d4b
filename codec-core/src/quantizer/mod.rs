//! Codebook searches and scalar quantizers.
