/* Keeps open pages up to date. All pages also work without it, reloaded by hand. */
"use strict";
(() => {
  const root = document.documentElement;
  const body = document.body;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const fragmentHeader = { "X-Fragment": "1" };

  // ---- times: the server sends UTC, pages show local time ----------------------------------------------------
  const two = (number) => String(number).padStart(2, "0");

  function clock(moment) {
    const at = new Date(moment);
    const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (at.toDateString() === new Date().toDateString()) return `${time}:${two(at.getSeconds())}`;
    const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const year = at.getFullYear() === new Date().getFullYear() ? "" : `${at.getFullYear()}-`;
    return `${year}${day} ${time}`;
  }

  function span(seconds) {
    if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)}s`;
    const whole = Math.floor(seconds);
    if (whole < 60) return `${whole}s`;
    const minutes = Math.floor(whole / 60);
    if (minutes < 60) return `${minutes}m${two(whole % 60)}s`;
    const hours = Math.floor(minutes / 60);
    if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
    return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
  }

  function updateTimes(from) {
    for (const time of $$("time[data-clock]", from)) time.textContent = clock(time.dateTime);
    updateSpans(from);
  }

  function updateSpans(from) {
    const now = Date.now();
    for (const part of $$("[data-since]", from)) {
      part.textContent = span((now - Date.parse(part.dataset.since)) / 1000);
    }
  }

  // ---- morphing: only differences are applied, so focus, selection and scroll position stay ------------------
  const keyOf = (node) => (node.nodeType === 1 ? node.dataset?.key : undefined);

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const key = keyOf(wanted);
      const known = key ? keyed.get(key) : undefined;
      if (known && known.nodeName === wanted.nodeName) {
        keyed.delete(key);
        if (known === place) place = place.nextSibling;
        else old.insertBefore(known, place);
        morph(known, wanted);
      } else if (!key && place && !keyOf(place) && place.nodeName === wanted.nodeName) {
        const next = place.nextSibling;
        morph(place, wanted);
        place = next;
      } else {
        old.insertBefore(wanted, place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      // The user opens and closes details; the server does not.
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, fresh);
  }

  // ---- fragments: requested after an event, one at a time -----------------------------------------------------
  const region = $("[data-fragment]");
  let request = null;
  let again = false;
  let waiting = 0;
  let notBefore = 0;
  let lastStatus = region?.dataset.status;

  const fragmentUrl = () =>
    region.dataset.fragment + ("list" in region.dataset ? location.search : "");

  function place(text) {
    const fresh = new DOMParser().parseFromString(`<main>${text}</main>`, "text/html").body.firstChild;
    updateTimes(fresh);
    const parts = $$("[data-part]", fresh);
    if (parts.length) {
      for (const part of parts) morph($(`[data-part="${part.dataset.part}"]`), part);
      afterJob();
    } else {
      const holder = region.cloneNode(false);
      holder.append(...fresh.childNodes);
      morphChildren(region, holder);
    }
  }

  async function refresh({ now = false } = {}) {
    if (!region) return;
    clearTimeout(waiting);
    const early = notBefore - performance.now();
    if (early > 0 && !now) {
      waiting = setTimeout(refresh, early);
      return;
    }
    if (request) {
      // The filters have changed: the answer to the present request is not needed.
      if (now) request.abort();
      else {
        again = true;
        return;
      }
    }
    const mine = new AbortController();
    const began = performance.now();
    request = mine;
    try {
      const answer = await fetch(fragmentUrl(), { headers: fragmentHeader, signal: mine.signal });
      if (answer.status === 401) return signIn();
      if (answer.ok) {
        place(await answer.text());
        if (isOpen) live("on");
      } else {
        const problem = await answer.json();
        live("away", problem.status === 503 ? "the store is unavailable" : problem.detail);
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      live("off", "not reachable, retrying");
    } finally {
      if (request === mine) {
        request = null;
        // A single event is shown at once; on a busy bridge, a page spends at most a quarter of the time on updates.
        const ended = performance.now();
        notBefore = ended + Math.min(1000, 3 * (ended - began));
        if (again) {
          again = false;
          refresh();
        }
      }
    }
  }

  const signIn = () => location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);

  // ---- events -------------------------------------------------------------------------------------------------
  const liveState = $("[data-live-state]");
  let stream = null;
  let isOpen = false;
  let lastOutput = null;

  function live(state, text = { on: "live", off: "reconnecting" }[state]) {
    if (!liveState || liveState.dataset.liveState + liveState.textContent.trim() === state + text) return;
    liveState.dataset.liveState = state;
    $("[data-live-text]", liveState).textContent = text;
  }

  function listen() {
    if (!body.dataset.events || stream) return;
    const url = new URL(body.dataset.events, location.href);
    // A tab that was hidden resumes after the last chunk of output that it has.
    if (lastOutput) url.searchParams.set("after", lastOutput);
    stream = new EventSource(url);
    stream.onopen = () => {
      isOpen = true;
      live("on");
    };
    stream.onerror = () => {
      isOpen = false;
      live("off");
      if (stream.readyState === EventSource.CLOSED) {
        // The session may have ended; then the fragment request is answered with 401.
        stream = null;
        refresh();
        setTimeout(listen, 3000);
      }
    };
    for (const name of ["change", "tick"]) {
      stream.addEventListener(name, () => {
        if (region?.dataset.on.split(" ").includes(name) && !isPaged()) refresh();
      });
    }
    stream.addEventListener("output", (event) => {
      lastOutput = event.lastEventId;
      addOutput(JSON.parse(event.data));
    });
  }

  const isPaged = () => region && "list" in region.dataset && new URLSearchParams(location.search).has("cursor");

  // Browsers open six connections to a host; hidden pages must not occupy them.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      stream?.close();
      stream = null;
      isOpen = false;
    } else listen();
  });

  // ---- one job ------------------------------------------------------------------------------------------------
  const output = $("[data-output]");
  const outputMaxChars = 2_000_000;
  let outputChars = output ? output.textContent.length : 0;

  function addOutput(pieces) {
    if (!output) return;
    const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    for (const [name, text] of pieces) {
      let node = document.createTextNode(text);
      if (name === "err") {
        const part = document.createElement("span");
        part.className = "err";
        part.append(node);
        node = part;
      }
      output.append(node);
      outputChars += text.length;
      while (outputChars > outputMaxChars && output.firstChild !== node) {
        outputChars -= output.firstChild.textContent.length;
        output.firstChild.remove();
      }
    }
    if (follows) output.scrollTop = output.scrollHeight;
  }

  const ended = ["completed", "failed", "cancelled"];

  function afterJob() {
    const state = $('[data-part="head"] .state > span')?.textContent;
    if (state && state !== lastStatus && ended.includes(state)) verify();
    lastStatus = state;
  }

  async function verify() {
    const proof = $("[data-proof]");
    if (!proof) return;
    proof.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(proof.dataset.proof, { headers: fragmentHeader });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      const fresh = document.createElement("div");
      fresh.innerHTML = await answer.text();
      $("[data-proof-text]").replaceChildren(...fresh.childNodes);
    } catch (error) {
      toast(error.message, true);
    } finally {
      proof.removeAttribute("aria-busy");
    }
  }

  $("[data-verify]")?.addEventListener("submit", (event) => {
    event.preventDefault();
    verify();
  });

  // ---- actions on jobs ----------------------------------------------------------------------------------------
  let toastTimer = 0;

  function toast(text, bad = false) {
    const place = $("[data-toast]");
    place.textContent = text;
    place.classList.toggle("bad", bad);
    place.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => (place.hidden = true), bad ? 8000 : 3000);
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-action]")) return;
    event.preventDefault();
    const button = $("button", form);
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: fragmentHeader,
        body: new URLSearchParams(new FormData(form)),
      });
      if (answer.status === 401) return signIn();
      const reply = await answer.json();
      if (answer.ok) toast(reply.message);
      else toast(`${reply.detail} ${reply.remedy ?? ""}`, true);
      refresh();
    } catch {
      toast("The API is not reachable.", true);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });

  // ---- filters ------------------------------------------------------------------------------------------------
  const filters = $("[data-filters]");
  let typing = 0;

  function applyFilters() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(filters)) if (value) query.set(name, value);
    const text = query.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
    refresh({ now: true });
  }

  if (filters) {
    filters.classList.add("scripted");
    filters.addEventListener("submit", (event) => {
      event.preventDefault();
      applyFilters();
    });
    filters.addEventListener("input", (event) => {
      clearTimeout(typing);
      if (event.target.type === "search") typing = setTimeout(applyFilters, 60);
      else applyFilters();
    });
  }

  document.addEventListener("keydown", (event) => {
    const search = $("[data-search]");
    if (event.key !== "/" || !search || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    search.focus();
    search.select();
  });

  // ---- theme --------------------------------------------------------------------------------------------------
  $("[data-theme-switch]")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const themes = ["", "light", "dark"];
    const theme = themes[(themes.indexOf(root.dataset.theme ?? "") + 1) % themes.length];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    document.cookie = `3ox_theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    $("[data-theme-text]").textContent = theme || "auto";
  });

  // ---- start --------------------------------------------------------------------------------------------------
  updateTimes(document);
  setInterval(() => updateSpans(document), 1000);
  if (output) output.scrollTop = output.scrollHeight;
  if (ended.includes(lastStatus) && $("[data-proof-text] .wait")) verify();
  if (liveState) {
    if (body.dataset.events) {
      live("off", "connecting");
      listen();
    } else liveState.hidden = true;
  }
})();
