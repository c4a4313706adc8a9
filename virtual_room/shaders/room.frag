#version 330
// Light falls as in `light.py`, with a shadow map for the first light and occlusion from the cells around a point.
// LIGHTS and DEEPEST are defined by `shaded.py`.
uniform sampler2D p3d_Texture0;
uniform sampler3D grid;
uniform sampler2DShadow shadow;
uniform mat4 to_lamp;
uniform mat4 p3d_ViewMatrixInverse;
uniform vec3 light_at[LIGHTS], light_normal[LIGHTS], light_color[LIGHTS];
uniform float light_area[LIGHTS];
uniform int lights;
uniform vec2 soft;  // of the shadow map: radius of the blur, and meters that a grazed surface is lifted by, a meter of distance
uniform vec3 ambient, grid_origin, grid_size;
uniform vec2 scale;
in vec3 at, view, normal, color;
in vec2 uv;
in vec2 shine;  // emission, gloss
flat in float number;
layout(location = 0) out vec4 image;
layout(location = 1) out vec4 instance;
layout(location = 2) out vec4 deep;
layout(location = 3) out vec4 facet;

float occupied(vec3 p, float lod) { return textureLod(grid, (p - grid_origin) / grid_size, lod).r; }

// Share of the air around a point that is free, from near to far.
float open_air(vec3 n) {
    float a = occupied(at + .07 * n, 0.0), b = occupied(at + .15 * n, 1.0);
    float c = occupied(at + .33 * n, 2.0), d = occupied(at + .7 * n, 3.0);
    return (1.0 - .55 * a) * (1.0 - .5 * b) * (1.0 - .55 * c) * (1.0 - .5 * d);
}

// Share of the first light that no object stops, from four places of the shadow map.
float unshadowed(vec3 n) {
    bool sun = light_area[0] == 0.0;
    vec3 way = sun ? -light_normal[0] : light_at[0] - at;
    float far = length(way), steep = dot(way, n) / far, slope = sqrt(max(0.0, 1.0 - steep * steep));
    vec4 p = to_lamp * vec4(at + (.012 + soft.y * far * slope) * n, 1);
    if (p.w <= .05 || any(greaterThan(abs(p.xy), vec2(p.w)))) return 1.0;
    vec3 q = p.xyz / p.w * .5 + .5;
    q.z -= .0002;
    float turn = 6.2832 * fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(.0671, .00584))));
    vec2 r = soft.x * vec2(cos(turn), sin(turn)), s = vec2(-r.y, r.x);
    return .25 * (texture(shadow, q + vec3(.35 * r, 0)) + texture(shadow, q - vec3(.6 * r, 0))
                + texture(shadow, q + vec3(.8 * s, 0)) + texture(shadow, q - vec3(s, 0)));
}

void main() {
    vec3 n = normalize(normal), eye = normalize(p3d_ViewMatrixInverse[3].xyz - at);
    float open = open_air(n), clear = unshadowed(n);  // not in the loop, where software would take it for every light
    vec3 light = ambient * open * (.45 + .15 * n.z), gleam = vec3(0);
    for (int i = 0; i < lights; i++) {
        bool sun = light_area[i] == 0.0;
        vec3 way = sun ? -light_normal[i] : light_at[i] - at;
        float square = dot(way, way);
        way *= inversesqrt(square + 1e-6);
        float facing = dot(way, n);
        float leaving = dot(light_normal[i], light_normal[i]) > .5 ? max(0.0, -dot(way, light_normal[i])) : .45;
        float arriving = sun ? 1.0 : leaving * light_area[i] / (3.1416 * square + light_area[i] * .7);
        arriving *= i > 0 ? .2 + .7 * open : sun ? clear : .15 * open + .95 * clear;
        light += arriving * light_color[i] * max(0.0, sun ? facing : facing * .85 + .15);
        gleam += arriving * light_color[i] * pow(max(0.0, dot(n, normalize(way + eye))), 40.0);
    }
    float edge = pow(1.0 - max(0.0, dot(n, eye)), 4.0);
    vec3 paint = color * texture(p3d_Texture0, uv).rgb;
    vec3 linear = pow(paint, vec3(2.2)) * (light * scale.x + shine.x) + shine.y * scale.x * (gleam * .6 + edge * .25 * light);
    image = vec4(pow(clamp(linear * scale.y, 0.0, 1.0), vec3(1 / 2.2)), 1);
    instance = vec4(mod(number, 256.0), floor(number / 256.0), 0, 255) / 255.0;
    vec3 plane = normalize(cross(dFdx(view), dFdy(view)));
    plane *= -sign(dot(plane, view)) * vec3(1, -1, -1);
    float far = floor(-view.z / DEEPEST * 16777216.0);
    deep = vec4(floor(far / 65536.0), mod(floor(far / 256.0), 256.0), mod(far, 256.0), plane.z > 0.0 ? 255.0 : 0.0) / 255.0;
    vec2 fine = floor((plane.xy + 1.0) * 32767.0 + .5);
    facet = vec4(floor(fine.x / 256.0), mod(fine.x, 256.0), floor(fine.y / 256.0), mod(fine.y, 256.0)) / 255.0;
}
