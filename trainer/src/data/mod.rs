//! Source -> record -> chat template -> tokens and pixels -> batch, with its cursor.
