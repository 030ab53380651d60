//! The wire of Cowrite: messages, clients and servers of `cowrite.v1`, generated from the `.proto`
//! files of this folder, which document every field.

/// Version 1 of the protocol.
pub mod v1 {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::missing_errors_doc,
        reason = "generated code; the .proto files are its documentation"
    )]
    tonic::include_proto!("cowrite.v1");
}

/// The value of `Join.protocol_version` that this package describes.
pub const PROTOCOL_VERSION: u32 = 1;

/// The `google.rpc.ErrorInfo.domain` of every refusal.
pub const ERROR_DOMAIN: &str = "cowrite";

/// The encoded `FileDescriptorSet` of the package, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/cowrite.v1.binpb"));
