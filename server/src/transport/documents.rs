//! The document service: what documents there are.

use cowrite_proto::v1::{
    Document, ListDocumentsRequest, ListDocumentsResponse, document_service_server::DocumentService,
};
use tonic::{Request, Response, Status};

use super::status;
use crate::session::{CloseReason, DocumentId, Identity, Listed, Sessions, Token};

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

    /// The next documents that may be read. The others are passed over: not even the end of a page
    /// tells of them.
    async fn readable(
        &self,
        identity: &Identity,
        mut after: Option<DocumentId>,
        limit: usize,
    ) -> Vec<Listed> {
        let mut readable = Vec::new();
        while readable.len() < limit {
            let listed = self.sessions.registry().list(after.as_ref(), limit.max(PAGE_SIZE));
            let Some(last) = listed.last() else { break };
            after = Some(last.document.clone());
            let may_be_read = |one: &Listed| identity.access(&one.document).is_some();
            readable.extend(listed.into_iter().filter(may_be_read));
            // There may be very many before one that may be read: others are served meanwhile.
            tokio::task::yield_now().await;
        }
        readable.truncate(limit);
        readable
    }
}

/// The token of a call; empty without one.
fn bearer<T>(request: &Request<T>) -> Token {
    let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = value
        .and_then(|value| value.split_once(' '))
        .map(|(scheme, token)| if scheme.eq_ignore_ascii_case("bearer") { token } else { "" });
    token.unwrap_or_default().into()
}

#[tonic::async_trait]
impl DocumentService for Documents {
    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let token = bearer(&request);
        let identity = self.sessions.identify(&token).await;
        let identity = identity.map_err(|reason| status::closed(&reason, None))?;
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
        let mut found = self.readable(&identity, after, size + 1).await;
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
