// Many photos: an album that grows as captions come, is worked on in place, and is kept until it is cleared.
(() => {
  const { element: build, kept, places, originals, download } = window.captioner;
  const MOST = 2000;  // as the server's: more make a page that a phone cannot hold
  const SEARCHES = {
    "as the model prefers": {},
    "greedy": { method: "beam", beam_size: 1 },
    "diverse": { method: "diverse" },
    "by chance": { method: "sample" },
  };
  const photos = new Map();  // by id, in the order they came
  const known = new Set();  // those that were thrown away, too: the server's list still has them
  const small = new Map();  // their pictures, as the browser has them
  let root, list, models = [], keeps = true;

  const find = (name) => root.querySelector(name);
  const all = () => [...photos.values()];
  const captions = () => all().filter(({ error }) => !error);
  const edited = (photo) => !photo.error && photo.text !== photo.caption;
  const keep = async (photo) => {
    const done = await kept.put("photos", photo);
    if (keeps !== done) tell((keeps = done));
  };
  const tell = () => {
    find(".kept").textContent = keeps
      ? "This album stays in this browser, with your changes, until you clear it."
      : "This browser keeps nothing: download the captions before you leave or reload.";
  };

  // ---- one photo ----

  const fetched = async (photo) => {
    const answer = photo.path && (await fetch(`gradio_api/file=${photo.path}`).catch(() => null));
    return answer?.ok ? answer.blob() : null;
  };
  const paint = async (photo, image) => {
    let picture = small.get(photo.id);
    if (!picture && (picture = await fetched(photo))) {
      small.set(photo.id, picture);
      kept.put("pictures", { id: photo.id, picture });
    }
    if (picture) image.src = URL.createObjectURL(picture);
  };
  const remove = (photo, item) => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    photos.delete(photo.id);
    small.delete(photo.id);
    kept.remove("photos", photo.id);
    kept.remove("pictures", photo.id);
    item.remove();
    count();
    (next?.querySelector("textarea, button") ?? document.querySelector("#album-files .choose")).focus();
  };
  const write = (photo, item, text) => {
    photo.text = item.caption.value = item.image.alt = text;
    item.classList.toggle("edited", edited(photo));
    keep(photo);
    count();
  };
  const check = (photo, item, on) => {
    photo.checked = item.tick.checked = on;
    item.classList.toggle("checked", on);
    keep(photo);
    count();
  };
  const go = (item, step) => {
    const shown = [...list.children].filter((other) => !other.hidden && other.caption);
    const next = shown[shown.indexOf(item) + step];
    next?.caption.focus();
    next?.scrollIntoView({ block: "center" });
  };

  const card = (photo) => {
    const name = build("small", { textContent: photo.name, title: photo.name });
    const item = build("li", { photo });
    if (photo.error) {
      const button = build("button", { type: "button", className: "remove", textContent: "Remove", ariaLabel: `Remove ${photo.name}` });
      button.addEventListener("click", () => remove(photo, item));
      item.append(build("p", { className: "problem", textContent: photo.error }), name, button);
      return item;
    }
    const image = build("img", { alt: photo.text });
    const caption = build("textarea", { value: photo.text, rows: 2, ariaLabel: `Caption of ${photo.name}` });
    const tick = build("input", { type: "checkbox", checked: photo.checked, ariaLabel: `Checked: ${photo.name}` });
    const more = build("details", { className: "more" },
      build("summary", { textContent: "More", ariaLabel: `More for ${photo.name}` }), build("div"));
    Object.assign(item, { image, caption, tick });
    item.classList.toggle("edited", edited(photo));
    item.classList.toggle("checked", photo.checked);
    let before = photo.text;
    caption.addEventListener("focus", () => (before = photo.text));
    caption.addEventListener("input", () => write(photo, item, caption.value.replaceAll("\n", " ")));  // it is one line
    caption.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") write(photo, item, before);
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) check(photo, item, true);
      go(item, event.shiftKey ? -1 : 1);
    });
    tick.addEventListener("change", () => check(photo, item, tick.checked));
    more.addEventListener("toggle", () => more.open && open(photo, item, more.lastChild));
    const unsure = build("p", { className: "unsure", hidden: !photo.unsure, textContent: "The model is unsure" });
    item.unsure = unsure;
    item.append(image, unsure, caption, build("div", { className: "line" }, name, build("label", {}, tick, " Checked")), more);
    paint(photo, image);
    return item;
  };

  // Other sentences, another model or search, and the way out of the album.
  const open = (photo, item, place) => {
    const others = [...new Set([photo.caption, ...photo.alternatives])].filter((text) => text !== photo.text);
    const rows = others.map((text) => {
      const button = build("button", { type: "button", className: "pick", textContent: text || "(no words)" });
      button.addEventListener("click", () => {
        write(photo, item, text);
        open(photo, item, place);
        item.caption.focus();
      });
      return build("li", {}, button);
    });
    const choice = (label, names) =>
      build("select", { ariaLabel: `${label} for ${photo.name}` }, ...names.map((text) => build("option", { textContent: text })));
    const model = choice("Model", models), search = choice("Search", Object.keys(SEARCHES));
    const again = build("button", { type: "button", textContent: "Caption anew" });
    const said = build("p", { className: "problem", role: "alert" });
    again.addEventListener("click", async () => {
      again.disabled = true;
      said.textContent = await anew(photo, item, model.value, SEARCHES[search.value]);
      again.disabled = false;
      if (said.textContent) return;
      open(photo, item, place);
      item.caption.focus();  // the button is another one now
    });
    const out = build("button", { type: "button", className: "remove", textContent: "Remove", ariaLabel: `Remove ${photo.name}` });
    out.addEventListener("click", () => confirm(`Take ${photo.name} out of the album?`) && remove(photo, item));
    const sure = photo.probability === null ? "" : `${Math.round(100 * photo.probability)}% mean probability per word`;
    place.replaceChildren(build("ul", {}, ...rows), build("p", { className: "hint", textContent: sure }),
      build("div", { className: "line" }, ...(models.length > 1 ? [model] : []), search, again, out), said);
  };
  // By the photo itself where this tab still has it, by its small picture else: the server's copy may be gone.
  const anew = async (photo, item, model, search) => {
    const sent = originals.get(photo.source), whole = sent && !/\.zip$/i.test(photo.source) && sent.size < 50_000_000;
    const form = new FormData(), picture = whole ? sent : small.get(photo.id);
    if (!picture) return "The photo is no longer here: send it again.";
    form.append("files", picture, "photo");
    for (const [name, value] of Object.entries({ model, ...search })) form.append(name, value);
    const answer = await fetch("api/caption", { method: "POST", body: form }).catch(() => null);
    const said = await answer?.json().catch(() => null), [found] = said?.captions ?? [];
    if (found?.caption === undefined) return said?.error ?? "The server does not answer: try again.";
    Object.assign(photo, {
      caption: found.caption, probability: found.word_probability, unsure: found.unsure ?? null,
      alternatives: found.alternatives.map(({ caption }) => caption),
    });
    item.unsure.hidden = !photo.unsure;
    write(photo, item, found.caption);
    return "";
  };

  // ---- all of them ----

  const FILTERS = {
    all: () => true,
    unsure: ({ unsure }) => unsure,
    unchecked: ({ checked, error }) => !checked && !error,
    edited,
    errors: ({ error }) => error,
  };
  const sureness = ({ error, probability }) => (error ? 2 : probability ?? 1);
  const ORDERS = {
    place: (one, other) => one.place - other.place,
    sure: (one, other) => sureness(one) - sureness(other) || one.place - other.place,
    name: (one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }),
  };
  const choose = () => {
    const text = find(".find").value.trim().toLowerCase(), fits = FILTERS[find(".show").value];
    for (const item of list.children)
      item.hidden = !fits(item.photo) || !`${item.photo.name} ${item.photo.text}`.toLowerCase().includes(text);
    count();
  };
  const order = () => list.append(...[...list.children].sort((one, other) => ORDERS[find(".sort").value](one.photo, other.photo)));
  const count = () => {
    const shown = [...list.children].filter((item) => !item.hidden).length, whole = photos.size;
    const number = (fits, word) => (all().filter(fits).length ? `, ${all().filter(fits).length.toLocaleString()} ${word}` : "");
    root.hidden = !whole;
    find(".show [value=unsure]").hidden = !all().some(({ unsure }) => unsure);
    find(".count").textContent = `${shown === whole ? "" : `${shown.toLocaleString()} of `}${whole.toLocaleString()} photo${whole === 1 ? "" : "s"}`
      + number(FILTERS.errors, "with errors") + number(edited, "edited") + number(({ checked }) => checked, "checked");
  };
  const card_of = (photo) => ({
    name: photo.name, caption: photo.text.trim(), source: photo.source, member: photo.member ?? "",
    // A person's own words have no probability.
    ...(edited(photo) ? {} : { probability: photo.probability, alternatives: photo.alternatives }),
  });
  const send = async (sources) => {
    for (const source of sources) {
      const path = await places.album.again(source);
      if (!path) return false;
      for (const photo of all().filter((other) => other.source === source)) keep(Object.assign(photo, { source: path }));
    }
    return true;
  };
  const named = (name) => {  // two photos of one name would be one file of captions
    const taken = new Set(all().map((other) => other.name.toLowerCase()));
    const [, stem, suffix] = /^(.*?)(\.[^./]*)?$/s.exec(name);
    for (let number = 1; ; number++) {
      const unique = number === 1 ? name : `${stem}-${number}${suffix ?? ""}`;
      if (!taken.has(unique.toLowerCase())) return unique;
    }
  };
  const add = (photo) => {
    known.add(photo.id);
    photos.set(photo.id, photo);
    list.append(card(photo));
  };
  const arrive = (shown) => {
    known.add(shown.id);
    if (photos.size >= MOST) {
      find(".kept").textContent = `An album holds ${MOST.toLocaleString()} photos: download its captions and clear it for more.`;
      return;
    }
    const place = 1 + Math.max(0, ...all().slice(-1).map((last) => last.place));
    const photo = {
      ...shown, name: named(shown.name), place, text: shown.caption, checked: false,
      probability: shown.probability ?? null, unsure: shown.unsure ?? null, alternatives: shown.alternatives ?? [],
    };
    add(photo);
    keep(photo).then(() => places.album.arrived(shown.source));  // not before: a reload may come in between
  };
  const clear = () => {
    const changed = all().filter((photo) => edited(photo) || photo.checked).length;
    const work = changed ? ` ${changed.toLocaleString()} of them ${changed === 1 ? "is" : "are"} edited or checked.` : "";
    if (!confirm(`Throw away the album of ${photos.size.toLocaleString()} photos?${work}`)) return;
    document.querySelector("#album-stop")?.click();
    photos.clear();
    small.clear();
    list.querySelectorAll("img").forEach(({ src }) => URL.revokeObjectURL(src));
    list.replaceChildren();
    for (const store of ["photos", "pictures"]) kept.clear(store);
    count();
    document.querySelector("#album-files .choose").focus();
  };

  const album = async (element, props, watch) => {
    root = element.querySelector("section");
    list = find(".gallery");
    models = props.models;
    const update = () => {
      const fresh = (props.value ?? []).filter(({ id }) => !known.has(id));
      fresh.forEach(arrive);
      if (fresh.length) choose();
    };
    for (const { id, picture } of await kept.all("pictures")) small.set(id, picture);
    (await kept.all("photos")).sort(ORDERS.place).forEach(add);
    tell();
    choose();
    watch("value", update);
    update();
    find(".sort").addEventListener("change", order);
    find(".show").addEventListener("change", choose);
    find(".find").addEventListener("input", choose);
    find(".clear").addEventListener("click", clear);
    root.addEventListener("click", ({ target }) => {
      const button = target.closest(".download");
      if (button) download(button, () => captions().sort(ORDERS.place).map(card_of), send);
    });
  };

  Object.assign(window.captioner, { album });
})();
