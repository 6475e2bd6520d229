//! Paged lists as streams.

use std::future::Future;

use futures_util::{Stream, TryStreamExt, stream};

use super::{api::Api, error::Error};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items. A page may be shorter than requested, even empty, although others follow
    /// (platform.md#instance-query).
    pub items: Vec<T>,
    /// Total of all pages, if the platform reports it.
    pub total: Option<u64>,
    /// Mark of the next page; `None` on the last.
    pub next: Option<String>,
}

/// Whether the platform may return the same mark twice in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// A mark names a page, so a repeated mark would return the same page forever.
    NamePages,
    /// A mark names the whole list, in which the platform keeps the position. The list ends with an empty page at the
    /// latest.
    NameLists,
}

/// Streams pages, each fetched on demand. Ends after the first error.
pub(super) fn pages<T, F, Fetching>(
    api: Api,
    marks: Marks,
    fetch: F,
) -> impl Stream<Item = Result<Page<T>, Error>>
where
    F: Fn(Option<String>) -> Fetching,
    Fetching: Future<Output = Result<Page<T>, Error>>,
{
    enum Place {
        At(Option<String>),
        End,
    }
    stream::try_unfold((Place::At(None), fetch), move |(place, fetch)| async move {
        let Place::At(mark) = place else { return Ok(None) };
        let page = fetch(mark.clone()).await?;
        let next = match (&page.next, marks) {
            (None, _) => Place::End,
            (Some(_), Marks::NameLists) if page.items.is_empty() => Place::End,
            (Some(next), Marks::NamePages) if Some(next) == mark.as_ref() => {
                return Err(Error::EndlessPages { api });
            }
            (Some(next), _) => Place::At(Some(next.clone())),
        };
        Ok(Some((page, (next, fetch))))
    })
}

pub(super) fn items<T>(
    pages: impl Stream<Item = Result<Page<T>, Error>>,
) -> impl Stream<Item = Result<T, Error>> {
    pages.map_ok(|page| stream::iter(page.items.into_iter().map(Ok))).try_flatten()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Script = [(&'static [u8], Option<&'static str>)];

    async fn read(marks: Marks, script: &Script) -> (Result<Vec<u8>, String>, Vec<Option<String>>) {
        let asked = RefCell::new(Vec::new());
        let pages = pages(Api::ListTasks, marks, |mark| {
            let at = asked.borrow().len();
            asked.borrow_mut().push(mark);
            let (page, next) = script[at];
            let next = next.map(str::to_owned);
            async move { Ok(Page { items: page.to_vec(), total: None, next }) }
        });
        let read = items(pages).try_collect().await.map_err(|error: Error| error.to_string());
        (read, asked.into_inner())
    }

    #[tokio::test]
    async fn pages_are_read_to_the_end_short_and_empty_ones_included() {
        let (read, asked) =
            read(Marks::NamePages, &[(&[1, 2], Some("a")), (&[], Some("b")), (&[3], None)]).await;
        assert_eq!(read.unwrap(), [1, 2, 3]);
        assert_eq!(asked, [None, Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[tokio::test]
    async fn a_page_that_leads_to_itself_is_an_error_and_a_scroll_is_not() {
        let same: &Script = &[(&[1], Some("a")), (&[2], Some("a")), (&[], Some("a"))];
        assert!(read(Marks::NamePages, same).await.0.unwrap_err().contains("never end"));
        assert_eq!(read(Marks::NameLists, same).await.0.unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn nothing_is_fetched_before_it_is_asked_for() {
        let asked = RefCell::new(0);
        let pages = pages(Api::ListTasks, Marks::NamePages, |_| {
            *asked.borrow_mut() += 1;
            async { Ok(Page { items: vec![1_u8], total: None, next: Some(asked.borrow().to_string()) }) }
        });
        let mut pages = std::pin::pin!(pages);
        assert!(pages.try_next().await.unwrap().is_some());
        assert_eq!(*asked.borrow(), 1);
    }
}
