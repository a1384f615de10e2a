// What an album is kept in: a database of this browser's. It outlives a reload, and the server's hour. Where a browser
// keeps nothing (a private window, a full disk) everything works as long as the tab lives, and the album says so.
(() => {
  const base = new Promise((resolve) => {
    const request = indexedDB.open("captioner album", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("photos", { keyPath: "id" });
      request.result.createObjectStore("pictures", { keyPath: "id" });  // apart: a caption changes more often
      request.result.createObjectStore("files", { keyPath: "path" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  }).catch(() => null);

  // What `todo` asked of a store; undefined where that failed.
  const ask = async (store, mode, todo) => {
    const opened = await base;
    if (!opened) return undefined;
    return new Promise((resolve) => {
      const transaction = opened.transaction(store, mode), request = todo(transaction.objectStore(store));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => resolve(undefined);
    });
  };

  window.captioner.kept = {
    all: async (store) => (await ask(store, "readonly", (place) => place.getAll())) ?? [],
    put: async (store, record) => (await ask(store, "readwrite", (place) => place.put(record))) !== undefined,
    remove: (store, key) => ask(store, "readwrite", (place) => place.delete(key)),
    clear: (store) => ask(store, "readwrite", (place) => place.clear()),
  };
})();
