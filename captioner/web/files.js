// The place for files: chosen, dropped, or a whole folder, each sent to the server as soon as it is there. Gradio's own
// forgets folders, and has a button to remove each file before a keyboard gets to the one that begins.
(() => {
  const { element: build, kept } = window.captioner;
  const FRESH = 40 * 60_000;  // the server deletes what was sent after fifty minutes
  const originals = new Map();  // by their path on the server, while the tab lives
  const places = {};
  const zipped = ({ name }) => /\.zip$/i.test(name);

  const chooser = (page, element, props, watch, trigger) => {
    const several = page === "album", find = (name) => element.querySelector(name);
    const [input, folder] = element.querySelectorAll("input");
    let waiting = [];  // { name, file, path, when, done }: `done` of a zip's pictures have captions
    let sending = Promise.resolve(), left = 0;

    const show = () => {
      const ready = waiting.filter(({ path }) => path).length, many = waiting.length;
      const what = several ? `${many.toLocaleString()} file${many === 1 ? "" : "s"}` : waiting[0]?.name;
      find(".waiting").textContent = !many ? "" : ready < many && left ? `Sending ${what}: ${ready} are there` : `${what} chosen`;
      find("details").hidden = !many;
      find("ul").replaceChildren(...(find("details").open ? waiting.map(row) : []));
    };
    const row = (one) => {
      const remove = build("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${one.name}` });
      remove.addEventListener("click", () => {
        const next = remove.closest("li").nextElementSibling;
        const place = next ? [...next.parentElement.children].indexOf(next) - 1 : -1;
        drop((other) => other === one);
        (find("ul").children[place]?.querySelector("button") ?? find(".choose")).focus();
      });
      return build("li", {}, build("span", { textContent: one.name }), remove);
    };
    const drop = (gone) => {
      const those = waiting.filter(gone);
      if (!those.length) return;
      waiting = waiting.filter((one) => !gone(one));
      if (several) those.forEach(({ path }) => path && kept.remove("files", path));
      else trigger("clear");
      show();
    };
    const complain = (text) => find(".problem").replaceChildren(text);

    // Where the server keeps it from now on; null, and what is wrong is said, where it was not taken.
    const upload = async (name, file) => {
      const form = new FormData();
      form.append("files", file, file.name);
      const answer = await fetch("gradio_api/upload", { method: "POST", body: form }).catch(() => null);
      const said = await answer?.json().catch(() => null);
      if (!answer?.ok) {
        complain(`${name} was not sent. ${said?.error ?? "The server does not answer: try again."}`);
        return null;
      }
      originals.set(said[0], file);
      return said[0];
    };
    const send = (one) => {
      left += 1;
      sending = sending.then(async () => {
        if (!waiting.includes(one)) return;
        const path = await upload(one.name, one.file);
        if (!path) return;
        if (one.path && several) kept.remove("files", one.path);
        Object.assign(one, { path, when: Date.now() });
        if (several) keep(one);
      }).finally(() => {
        left -= 1;
        show();
      });
    };
    const keep = ({ name, path, when, done }) => kept.put("files", { name, path, when, done });
    const add = (files) => {
      complain("");
      const wanted = files.filter(({ name }) => !/(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/.test(name));
      const fitting = wanted.filter(({ name, loose }) => loose || props.suffixes.includes(/(\.\w+)?$/.exec(name)[0].toLowerCase()));
      if (fitting.length < wanted.length)
        complain(`${(wanted.length - fitting.length).toLocaleString()} of the folder's files are no photos, and were left out.`);
      if (!several && fitting.length) drop(() => true);
      for (const { file, name } of several ? fitting : fitting.slice(0, 1)) {
        const one = { name, file, path: null, when: 0, done: 0 };
        waiting.push(one);
        send(one);
      }
      if (fitting.length) trigger("upload");
      show();
    };

    // What a visitor chooses alone is judged by the server, whatever its name; of a folder only photos are taken.
    const chosen = ({ target }) => {
      add([...target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name, loose: target === input })));
      target.value = "";  // so that the same can be chosen again
    };
    for (const [one, button] of [[input, find(".choose")], [folder, find(".choose-folder")]]) {
      one?.addEventListener("change", chosen);
      button?.addEventListener("click", () => one.click());
    }
    const walk = async (entry, path) => {
      if (entry.isFile)
        return new Promise((yes) => entry.file((file) => yes([{ file, name: path + file.name, loose: !path }]), () => yes([])));
      const reader = entry.createReader(), found = [];
      for (;;) {  // a browser tells of a hundred at a time
        const some = await new Promise((yes) => reader.readEntries(yes, () => yes([])));
        if (!some.length) return found;
        for (const one of some) found.push(...(await walk(one, `${path}${entry.name}/`)));
      }
    };
    const area = find(".chooser");
    for (const type of ["dragenter", "dragover", "dragleave", "drop"])
      area.addEventListener(type, async (event) => {
        event.preventDefault();
        area.classList.toggle("over", type === "dragenter" || type === "dragover");
        if (type !== "drop") return;
        const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
        const plain = [...event.dataTransfer.files].map((file) => ({ file, name: file.name, loose: true }));
        add(entries.length ? (await Promise.all(entries.map((entry) => walk(entry, "")))).flat() : plain);
      });
    find("details").addEventListener("toggle", show);
    find(".none").addEventListener("click", () => {
      drop(() => true);
      find(".choose").focus();
    });
    // The server names what it is done with.
    watch("value", () => drop(({ path }) => path && several && (props.value ?? []).includes(path)));

    places[page] = {
      // What the server has of them, in its own words; what it may have deleted by now is sent once more.
      ready: async () => {
        const stale = waiting.filter(({ file, path, when }) => file && (!path || Date.now() - when > FRESH));
        if (!left) stale.forEach(send);
        await sending;
        const there = waiting.filter(({ path }) => path);
        const file = ({ path, name }) => ({ path, orig_name: name, meta: { _type: "gradio.FileData" } });
        return there.map((one) => ({ file: file(one), done: one.done }));
      },
      // The same file once more, for a server that has deleted it; null where this tab has it no longer.
      again: async (path) => originals.has(path) ? upload(originals.get(path).name, originals.get(path)) : null,
      // A picture of that file has its caption, or its error.
      arrived: (path) => {
        const one = waiting.find((other) => other.path === path);
        if (!one) return;
        if (!zipped(one)) return drop((other) => other === one);
        one.done += 1;
        keep(one);
      },
    };
    if (several)
      Promise.all([kept.all("files"), kept.all("photos")]).then(([those, photos]) => {
        for (const one of those) {
          one.done = Math.max(one.done, photos.filter(({ source }) => source === one.path).length);
          if (Date.now() - one.when > FRESH || (one.done && !zipped(one))) kept.remove("files", one.path);
          else waiting.push(one);
        }
        show();
      });
  };

  Object.assign(window.captioner, { chooser, places, originals });
})();
