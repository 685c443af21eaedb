/*! Attributary page script, Apache-2.0. docs/how-to/web-page.md */
// It counts landings, not page views: an external referrer, campaign parameters or a click id make one. What it sends
// is kept as text, so a repeated request has the same bytes. Without consent to ad_storage it stores nothing.
// Types: attributary.d.ts. It is served without these comments and indentation (script.py), and is tested as served.
(function (win, doc) {
  "use strict";
  const tag = doc.currentScript;
  if (!tag || win.attributary) return;
  const data = tag.dataset;
  const base = data.endpoint || tag.src.replace(/[^/]*$/, "") + "api/v1/attribution";
  // One entry in localStorage: id, clicks, queue. One in sessionStorage: the records of this visit.
  const STORE = "_atb";
  const SEEN = "_atb_seen";
  const DAYS_90 = 7776e6;
  const MAX_RECORDS = 50;
  // 64 KiB are shared by all keepalive requests and beacons of a page.
  const MAX_BYTES = 6e4;
  const PURPOSES = ["ad_storage", "ad_user_data", "ad_personalization", "analytics_storage"];
  const CAMPAIGN = /^(utm|mtm|matomo|pk|piwik)_/i;
  const CLICK =
    /^(\w*cl(id|kid|ickid)|[gw]braid|gad_(source|campaignid)|gclsrc|epik|igsh(id)?|li_fat_id|mkt_tok|awc|cjevent|dicbo|_kx|__s|_hs(enc|mi)|mc_[ce]id|oly_(anon|enc)_id|vero_(conv|id)|sfmc_(id|sub)|rdt_cid|sccid|sscid|tblci|vmcid|srsltid|elqtrack(id)?|oborigurl|ransiteid|spmailingid)$/i;

  let consent, user, memoryId, timer;
  // Each entry: [path, JSON of a record]. The first flying ones are in the request on its way.
  let queue = [];
  let flying = 0;
  let tries = 0;
  let store = {};
  let seen = {};
  let lastCampaign = "";
  let held = data.consent === "wait";
  const pending = [];
  const waitingForId = [];

  const allowed = () => !!consent && consent.ad_storage === true;
  const stamp = () => new Date().toISOString();
  const bytes = (text) => new Blob([text]).size;
  const uuid = () =>
    Array.from(win.crypto.getRandomValues(new Uint8Array(16)), (byte) => (byte + 256).toString(16).slice(1))
      .join("")
      .replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, "$1-$2-4$3-a$4-$5");

  // Storage may be blocked, full, or hold something else.
  function stored(area, name, value) {
    try {
      if (value) win[area].setItem(name, JSON.stringify(value));
      else if (value === null) win[area].removeItem(name);
      else return JSON.parse(win[area].getItem(name)) || {};
    } catch (e) {}
    return {};
  }

  function save() {
    if (!allowed()) return;
    store.queue = queue.slice(-MAX_RECORDS);
    while (bytes(JSON.stringify(store.queue)) > MAX_BYTES) store.queue.shift();
    stored("localStorage", STORE, store);
    stored("sessionStorage", SEEN, seen);
  }

  function cookie(name) {
    const found = doc.cookie.match("(?:^|; )" + name + "=([^;]*)");
    return found && found[1];
  }

  function clickIds(properties) {
    const found = {};
    if (!allowed()) return found;
    for (const name in store.clicks) {
      const [text, at] = store.clicks[name];
      if (Date.now() - at > DAYS_90) continue;
      found[name] = text;
      if (properties) properties[name + "_first_seen_ms"] = "" + at;
    }
    for (const name of ["fbp", "fbc", "ttp", "gcl_aw"]) if (cookie("_" + name)) found[name] = cookie("_" + name);
    return found;
  }

  function person(record) {
    const id = allowed() ? store.id : (memoryId = memoryId || uuid());
    return Object.assign(record, { anonymous_id: id, user_id: user, consent });
  }

  // The same key gives the same bytes in this visit: a reload, or "back", sends the record of before.
  function push(path, key, make) {
    const text = (key && seen[key]) || JSON.stringify(person(make()));
    if (key) seen[key] = text;
    queue.push([path, text]);
    if (queue.length > MAX_RECORDS) queue.splice(flying, 1);
    save();
    soon();
  }

  // While a pause after an error lasts, new records wait with the others.
  const soon = () => timer || flush();

  function landing(url, referrer, at) {
    if (held) return pending.push(() => landing(url, referrer, at));
    const given = {};
    // Parameters as they stand in the URL: URLSearchParams would turn "+" into a blank.
    url.replace(/[?&#]([^=&#?]+)=([^&#]*)/g, (all, name, text) => {
      if (text && !given[name] && (CAMPAIGN.test(name) || CLICK.test(name))) given[name] = text;
    });
    const campaign = JSON.stringify(given);
    const from = "." + ((referrer || "").split(/[/:]+/)[1] || location.hostname);
    const own = (location.hostname + " " + (data.domains || "")).split(/[\s,]+/);
    const isOwn = own.some((domain) => domain && from.endsWith("." + domain));
    if (campaign === "{}" ? isOwn : campaign === lastCampaign) return;
    lastCampaign = campaign;
    const key = url + " " + referrer;
    // It was counted when it was new; without consent nothing of it was kept.
    const navigation = performance.getEntriesByType("navigation")[0];
    if (referrer !== undefined && !seen[key] && navigation && /reload|back/.test(navigation.type)) return;
    if (allowed()) {
      const clicks = (store.clicks = store.clicks || {});
      for (const name in given)
        if (CLICK.test(name) && (clicks[name] || [])[0] !== given[name]) clicks[name] = [given[name], Date.now()];
    }
    push("event", key, () => {
      const cookies = clickIds();
      for (const name in store.clicks) delete cookies[name];
      const record = { event_id: uuid(), occurred_at: at, landing_url: url.slice(0, 4096), click_ids: cookies };
      if (referrer) record.referrer = referrer.slice(0, 4096);
      return record;
    });
  }

  function conversion(given, at) {
    at = at || stamp();
    if (held) return pending.push(() => conversion(given, at));
    const id = given.event_id || given.order_id;
    push("conversion", id && "c " + id, () => {
      const properties = Object.assign({}, given.properties);
      const ids = Object.assign(clickIds(properties), given.click_ids);
      const ga = allowed() && cookie("_ga");
      const session = allowed() && doc.cookie.match(/(?:^|; )_ga_\w+=GS\d\.\d\.s?(\d+)/);
      return Object.assign(
        {
          event_id: id ? undefined : uuid(),
          occurred_at: at,
          conversion_type: "purchase",
          event_source_url: location.href.slice(0, 4096),
          ga_client_id: ga ? ga.split(".").slice(-2).join(".") : undefined,
          ga_session_id: session ? session[1] : undefined,
        },
        given,
        { click_ids: ids, properties }
      );
    });
  }

  // A request with the first records of one path, within the budget; one record at least.
  function batch(list, budget) {
    const path = list[0][0];
    let count = 0;
    let size = 20;
    while (count < list.length && list[count][0] === path && (size += bytes(list[count][1]) + 1) < budget) count++;
    count = count || 1;
    return {
      count,
      body: '{"events":[' + list.slice(0, count).map((each) => each[1]) + "]}",
      url: base + "/track/" + path + "?k=" + encodeURIComponent(data.key) + "&sent_at=" + stamp(),
    };
  }

  function flush() {
    clearTimeout(timer);
    timer = 0;
    if (held || doc.prerendering || flying || !queue.length) return;
    const { count, body, url } = batch(queue, MAX_BYTES);
    flying = count;
    post(url, body).then(
      (answer) =>
        answer.json().then(
          (said) => settle(answer, said),
          () => settle(answer, {})
        ),
      () => settle(null, {})
    );
  }

  // As text/plain no preflight is needed.
  function post(url, body) {
    const headers = { "content-type": "text/plain" };
    return fetch(url, { method: "POST", body, headers, credentials: "include", keepalive: bytes(body) < MAX_BYTES });
  }

  function settle(answer, said) {
    const status = answer ? answer.status : 599;
    const taken = queue.splice(0, flying);
    const again = status === 408 || status === 429 || status > 499;
    const left = again ? taken : (said.retry || []).map((each) => taken[each.index]);
    queue = left.concat(queue);
    flying = 0;
    if (said.anonymous_id && allowed()) keepId(said.anonymous_id);
    save();
    if (!left.length) {
      tries = 0;
      return flush();
    }
    const told = answer && answer.headers.get("retry-after");
    timer = setTimeout(flush, told > 0 ? told * 1e3 : (1e3 << Math.min(tries++, 6)) * (0.5 + Math.random()));
  }

  // The page goes. Nobody sees the answer to a beacon, so what is stored stays for the next page: the same bytes.
  function leave() {
    if (held || doc.prerendering) return;
    let waiting = queue.slice(flying);
    let budget = MAX_BYTES;
    while (waiting.length && budget > 500) {
      const { count, body, url } = batch(waiting, budget);
      if (navigator.sendBeacon(url, body)) waiting = waiting.slice(count);
      else if (budget > 1000 || count > 1) budget /= 2;
      else break;
    }
    if (allowed()) return save();
    if (waiting.length) {
      const { body, url } = batch(waiting, MAX_BYTES);
      post(url, body).catch(() => {});
    }
    queue.length = flying;
  }

  function keepId(id) {
    store.id = store.id || id;
    save();
    while (waitingForId.length) waitingForId.shift()(store.id);
  }

  function setConsent(given) {
    const before = allowed();
    consent = Object.assign({}, consent, given);
    held = false;
    if (allowed() && !before) {
      store = stored("localStorage", STORE);
      queue.splice(flying, 0, ...(store.queue || []));
      seen = Object.assign(stored("sessionStorage", SEEN), seen);
      // What this page sent before consent was the same person.
      if (memoryId) store.id = store.id || memoryId;
    } else if (before && !allowed()) {
      store = seen = {};
      stored("localStorage", STORE, null);
      stored("sessionStorage", SEEN, null);
    }
    while (pending.length) pending.shift()();
    save();
    soon();
  }

  const api = (win.attributary = {
    conversion: (given) => conversion(given),
    consent: setConsent,
    identify(id) {
      user = "" + id;
      const at = stamp();
      const link = () =>
        allowed() &&
        push("event", "u " + user, () => ({ type: "identity_link", event_id: uuid(), occurred_at: at }));
      held ? pending.push(link) : link();
    },
    id(callback) {
      if (!allowed() || store.id) callback(allowed() ? store.id : undefined);
      else {
        waitingForId.push(callback);
        if (!queue.length) keepId(uuid());
      }
    },
    attributes: (callback) => api.id((id) => callback(Object.assign(id ? { _atb: id } : {}, clickIds()))),
  });
  const calls = (win.atb && win.atb.q) || [];
  win.atb = (name, ...rest) => api[name](...rest);

  // <button data-atb-conversion="lead">, or a form; each element once a page.
  const told = new WeakSet();
  function onElement(event) {
    const from = event.target.closest && event.target.closest("[data-atb-conversion]");
    if (!from || told.has(from) || (from.tagName === "FORM") !== (event.type === "submit")) return;
    told.add(from);
    const set = from.dataset;
    conversion({
      conversion_type: set.atbConversion,
      order_id: set.atbOrder,
      value: set.atbValue,
      currency: set.atbCurrency,
    });
  }
  doc.addEventListener("click", onElement, true);
  doc.addEventListener("submit", onElement, true);

  function start() {
    const words = data.consent;
    if (words && !held) {
      const found = {};
      if (words === "granted" || words === "denied") for (const name of PURPOSES) found[name] = words === "granted";
      else for (const word of words.split(/[\s,]+/)) found[word.split("=")[0]] = /=(1|true|granted)$/.test(word);
      setConsent(found);
    }
    for (const call of calls) win.atb(...call);
    landing(location.href, doc.referrer, stamp());
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function () {
        original.apply(this, arguments);
        landing(location.href, undefined, stamp());
      };
    }
    win.addEventListener("popstate", () => landing(location.href, undefined, stamp()));
    win.addEventListener("pagehide", leave);
    doc.addEventListener("visibilitychange", () => (doc.visibilityState === "hidden" ? leave() : soon()));
    win.addEventListener("pageshow", (event) => event.persisted && soon());
    win.addEventListener("online", flush);
    soon();
  }
  if (doc.prerendering) doc.addEventListener("prerenderingchange", start, { once: true });
  else start();
})(window, document);
