/** Types of the Attributary page script. Copy this file, or name it in `types` of tsconfig.json. */

declare namespace Attributary {
  /** Consent by purpose. Without `ad_storage: true` the script stores nothing and no cookie is set. */
  interface Consent {
    ad_storage?: boolean;
    ad_user_data?: boolean;
    ad_personalization?: boolean;
    analytics_storage?: boolean;
    [purpose: string]: boolean | undefined;
  }

  interface Item {
    item_id: string;
    item_name?: string;
    item_category?: string;
    item_brand?: string;
    item_variant?: string;
    quantity?: number;
    /** Price of one piece, in units of the currency. Write amounts as text where a number could lose a digit. */
    price?: string | number;
  }

  /** An outcome. `order_id` or `event_id` makes a repeated call count once; without both each call is a new event. */
  interface Conversion {
    /** `purchase` unless named: lead, signup, add_to_cart, or a word of yours. */
    conversion_type?: string;
    order_id?: string;
    event_id?: string;
    conversion_id?: string;
    /** In units of the currency, for example "19.99". The write key must be allowed to name values. */
    value?: string | number;
    /** ISO 4217, upper case; needed with a value. */
    currency?: string;
    items?: Item[];
    properties?: Record<string, string>;
    /** Click ids by name; the ones that the script keeps are added. */
    click_ids?: Record<string, string>;
    /** Plain data of the person; the collector hashes it before it leaves. */
    user_data?: Partial<
      Record<
        | "email"
        | "phone"
        | "first_name"
        | "last_name"
        | "date_of_birth"
        | "gender"
        | "street"
        | "city"
        | "region"
        | "postal_code"
        | "country"
        | "external_id",
        string
      >
    >;
  }

  interface Api {
    /** Record a conversion. */
    conversion(conversion: Conversion): void;
    /** Set consent; later calls change the purposes that they name. Ends `data-consent="wait"`. */
    consent(consent: Consent): void;
    /** Say who the visitor is, after a sign-in. */
    identify(userId: string | number): void;
    /** Get the anonymous id; undefined without consent to `ad_storage`. It may be called later. */
    id(callback: (anonymousId: string | undefined) => void): void;
    /** Get what a cart or a payment hands over to the server: `_atb` and click ids by name. */
    attributes(callback: (attributes: Record<string, string>) => void): void;
  }

  /** The stub's form: `atb("conversion", {...})`. Calls before the script has loaded wait in `atb.q`. */
  interface Command {
    <Name extends keyof Api>(name: Name, ...rest: Parameters<Api[Name]>): void;
    q?: IArguments[];
  }
}

interface Window {
  attributary?: Attributary.Api;
  atb?: Attributary.Command;
}

declare const attributary: Attributary.Api;
declare const atb: Attributary.Command;
