use super::*;
use crate::rocks::{
    commit::{Change, Class},
    tests::open,
};

const TREE: TreeId = (KeyspaceId(1), PartitionId(0));

fn submission(changes: Vec<Change>, upkeep: Upkeep) -> Submission {
    let (flag, class) = (Flag::Unconcerned, Class::Data);
    Submission { changes, upkeep, flag, class, done: Box::new(|_| ()) }
}

/// The commit of a key, of whatever it holds.
fn commit(number: usize) -> Submission {
    let digest = EntryDigest::default();
    let change =
        KeyChange { tree: TREE, leaf: 0, before: digest, after: digest, is_deleted: false };
    let key = number.to_be_bytes().to_vec();
    submission(vec![Change { family: Family::Data, key, value: None }], Upkeep::Key(change))
}

/// Or every write would read the disk first, for ever.
#[test]
fn once_every_tree_was_scrubbed_not_all_keys_are_doubtful_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let shared = store.shared();
    let mut keeper = Keeper::new(&BTreeSet::new());
    let mut failed: Vec<_> = (0..MAX_DOUBTFUL).map(commit).collect();
    keeper.settle(shared, &failed, false);
    assert!(!keeper.all_are_doubtful, "each is remembered");
    failed.truncate(1);
    failed.push(commit(MAX_DOUBTFUL));
    keeper.settle(shared, &failed, false);
    assert!(keeper.all_are_doubtful, "there are more than can be remembered");

    let mut settle = |group: &[Submission]| {
        let mut batch = WriteBatch::default();
        keeper.prepare(shared, group, &mut batch).expect("readable");
        keeper.settle(shared, group, true);
        keeper.all_are_doubtful
    };
    assert!(settle(&[commit(1)]), "the tree has yet to be scrubbed");
    let mend = Mend {
        tree: TREE,
        differences: leaves::none(),
        listed_wrong: Vec::new(),
        doubt: shared.trees.doubt(TREE),
        clears: shared.trees.clears(TREE.1),
        mended: Arc::default(),
    };
    assert!(!settle(&[submission(Vec::new(), Upkeep::Mend(Box::new(mend)))]));
}
