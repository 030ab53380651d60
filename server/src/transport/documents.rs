//! The document service: what documents there are.

use cowrite_proto::v1::{
    Document, ListDocumentsRequest, ListDocumentsResponse, document_service_server::DocumentService,
};
use tonic::{Request, Response, Status};

use super::status;
use crate::session::{CloseReason, DocumentId, Sessions};

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

/// The document service.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    sessions: Sessions,
}

impl Documents {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

#[tonic::async_trait]
impl DocumentService for Documents {
    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let ListDocumentsRequest { page_size, page_token } = request.into_inner();
        let size = match usize::try_from(page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => PAGE_SIZE_MAX,
        };
        let bad_id = |error| status::closed(&CloseReason::BadDocumentId(error), None);
        let after = match &page_token[..] {
            "" => None,
            token => Some(DocumentId::parse(token).map_err(bad_id)?),
        };
        // One more than asked for, to know whether this is the last page.
        let mut found = self.sessions.registry().list(after.as_ref(), size + 1);
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = match found.last() {
            Some(last) if more => last.document.to_string(),
            _ => String::new(),
        };
        let documents = found.into_iter().map(|listed| Document {
            id: listed.document.to_string(),
            sequence: listed.head.0,
            sessions: u32::try_from(listed.sessions).unwrap_or(u32::MAX),
        });
        Ok(Response::new(ListDocumentsResponse { documents: documents.collect(), next_page_token }))
    }
}
