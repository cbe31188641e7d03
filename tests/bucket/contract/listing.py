"""The contract of listing: by the bytes of keys, complete, resumable."""

import pytest

from tests.bucket.contract.place import ContractBase, Place, listed


class ListingContract(ContractBase):
    """`list`."""

    async def test_a_listing_is_in_the_order_of_utf8_bytes_across_folders(self, place: Place) -> None:
        keys = [
            "a",
            "s/1.2",
            "s/1.2-x",
            "s/1.2.tar",
            "s/1.20.tar",
            "s/1.20/metadata.json",
            "s/1.3.tar",
            "s/1.3/metadata.json",
            "s/é",
            "s/\uff5e",
            "s/\U0001fac0",
            "t/u/v/w",
        ]
        keys.remove("s/1.2")
        keys += ["s/1.2/.gradient.lock", "s/1.2/metadata.json"]
        for key in reversed(keys):
            place.put(key, b"x")

        assert await listed(place.bucket) == sorted(keys, key=str.encode)

    async def test_a_prefix_may_end_anywhere_in_a_key(self, place: Place) -> None:
        keys = ["ab", "ab.tar", "ab2/c", "abc/d", "abc/de/f", "b"]
        for key in keys:
            place.put(key, b"x")

        for prefix in (
            "",
            "a",
            "ab",
            "ab.",
            "abc",
            "abc/",
            "abc/d",
            "abc/de",
            "abc/de/",
            "abc/de/f",
            "b",
            "c",
            "b/",
            "c/d/",
        ):
            assert await listed(place.bucket, prefix) == sorted(key for key in keys if key.startswith(prefix))

    async def test_after_resumes_a_listing_behind_any_text(self, place: Place) -> None:
        keys = ["a/1", "a/1.tar", "a/2/x", "a/2/y", "a/3", "b/1", "c"]
        for key in keys:
            place.put(key, b"x")

        for after in ("", *keys, "a", "a/", "a/2", "a/2/", "a/2/x/", "a/2/z", "a/2.", "b", "bb", "z"):
            assert await listed(place.bucket, "", after) == [key for key in sorted(keys) if key > after]
            assert await listed(place.bucket, "a/", after) == [
                key for key in sorted(keys) if key > after and key.startswith("a/")
            ]

    async def test_a_listing_of_many_objects_can_be_left_and_resumed(self, place: Place) -> None:
        keys = sorted(f"studies/{study}/series/{series}.tar" for study in range(20) for series in range(30))
        for key in keys:
            place.put(key, b"x")
        seen: list[str] = []
        while True:
            fresh: list[str] = []
            async for info in place.bucket.list("studies/", after=seen[-1] if seen else ""):
                fresh.append(info.key)
                if len(fresh) == 77:
                    break
            if not fresh:
                break
            seen += fresh

        assert seen == keys

    async def test_a_listing_tells_what_head_tells(self, place: Place) -> None:
        for key in ("a/b", "a/c/d"):
            place.put(key, key.encode())

        infos = [info async for info in place.bucket.list("a")]

        assert infos == [await place.bucket.head("a/b"), await place.bucket.head("a/c/d")]

    async def test_a_listing_of_nothing_is_empty(self, place: Place) -> None:
        place.put("a/b", b"x")

        assert await listed(place.bucket, "absent/") == []
        assert await listed(place.bucket, "a/b/c/d") == []

    @pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../", "./", "a\0", "a\\"])
    async def test_a_prefix_that_no_key_can_have_is_refused(self, place: Place, prefix: str) -> None:
        with pytest.raises(ValueError, match="key"):
            await listed(place.bucket, prefix)
