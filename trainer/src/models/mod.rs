//! Model families: units, tensor names, processors.
